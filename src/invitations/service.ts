import { createHash, randomBytes } from 'node:crypto'
import type { AccountsService } from '../accounts/service.ts'
import type { AnonymousCaller, AuditAction } from '../audit/events.ts'
import type { AuditRepository } from '../audit/repository.ts'
import type { PasswordHasher } from '../auth/passwords.ts'
import type { Throttle } from '../auth/throttle.ts'
import { isSameMailbox, normalizeEmail } from '../case-folding.ts'
import { type Database, type Tx, transact } from '../db/client.ts'
import type { Page, PageRequest } from '../db/paging.ts'
import { AppError, fail } from '../errors.ts'
import { newId } from '../ids.ts'
import { durationInWords, type Mailer } from '../mail/service.ts'
import { type Caller, principalId, type UserPrincipal } from '../principal.ts'
import { assertBelow } from '../resources/limits.ts'
import type { RolesRepository } from '../roles/repository.ts'
import { assertMayGrant, type RolesService } from '../roles/service.ts'
import type { UserRow, UsersRepository } from '../users/repository.ts'
import type { UsersService } from '../users/service.ts'
import type { Inviters } from './inviters.ts'
import type { InvitationRow, InvitationState, InvitationsRepository, Inviter } from './repository.ts'

/** What somebody who has no password here yet sends along. */
export type NewPerson = { password: string | undefined; fullName: string | undefined }

/** Who has accepted, and what came of it. */
export type Acceptance = { invitation: InvitationRow; userId: string; isNewUser: boolean }

/**
 * Mails from one account, and to one address from one account and from all: an account must not become a way to send mail
 * to strangers, nor to use up what others may send.
 */
const MAILS_PER_ACCOUNT_AND_HOUR = 100
const MAILS_PER_ACCOUNT_AND_ADDRESS_AND_DAY = 10
const MAILS_PER_ADDRESS_AND_DAY = 100
const AN_HOUR = 3600
const A_DAY = 86_400

type Dependencies = {
  database: Database
  invitations: InvitationsRepository
  inviters: Inviters
  accounts: AccountsService
  roles: RolesService
  rolesRepository: RolesRepository
  users: UsersRepository
  usersService: UsersService
  passwords: PasswordHasher
  throttle: Throttle
  mailer: Mailer
  audit: AuditRepository
  secondsToLive: number
}

/**
 * Invitations to an account by mail. Whoever accepts has shown to read what is sent to the address, and gets the role
 * if the inviter may give it then.
 */
export function createInvitationsService(dependencies: Dependencies) {
  const {
    database,
    invitations,
    inviters,
    accounts,
    roles,
    rolesRepository,
    users,
    usersService,
    passwords,
    throttle,
    mailer,
    audit,
    secondsToLive,
  } = dependencies
  const { db } = database

  /**
   * Counts a mail. Nothing here depends on whether somebody has the address.
   * @returns false when it had too many from others: then it is not sent, and nobody hears of it
   * @throws AppError too_many_requests when the account has sent too many, mail_not_configured
   */
  async function countMail(accountId: string, email: string): Promise<boolean> {
    mailer.assertConfigured()
    const [from, to] = [`account|${accountId}`, `email|${normalizeEmail(email)}`]
    await throttle.count('invitation', from, MAILS_PER_ACCOUNT_AND_HOUR, AN_HOUR)
    await throttle.count('invitation', `${from}|${to}`, MAILS_PER_ACCOUNT_AND_ADDRESS_AND_DAY, A_DAY)
    return await throttle.isWithin('invitation', to, MAILS_PER_ADDRESS_AND_DAY, A_DAY)
  }

  /** @throws AppError role_not_found, account_not_found, grant_exceeds_own */
  async function assertMayGive(caller: Caller, roleId: string, accountId: string, tx: Tx): Promise<void> {
    const role = (await rolesRepository.lockRole(roleId, tx, 'share')) ?? fail('role_not_found')
    assertMayGrant(caller, role, accountId)
  }

  async function mailInvitation(
    { email, accountName, expiresAt }: Pick<InvitationRow, 'email' | 'accountName' | 'expiresAt'>,
    token: string,
    tx: Tx,
  ): Promise<void> {
    const data = {
      link: mailer.linkTo('invitation', token),
      expires_in: durationInWords(secondsToLive),
      account: accountName,
    }
    await mailer.send({ to: email, template: 'invitation', data, expiresAt }, tx)
  }

  /** What is personal in an invitation stays in its row, which is removed in time. */
  async function record(
    action: AuditAction,
    caller: Caller | AnonymousCaller,
    { id, accountId, role }: Pick<InvitationRow, 'id' | 'accountId' | 'role'>,
    tx: Tx,
    details: Record<string, unknown> = {},
  ): Promise<void> {
    await audit.append(
      {
        action,
        caller,
        target: { type: 'invitation', id },
        accountId,
        details: { role_id: role.id, ...details },
      },
      tx,
    )
  }

  /** @throws AppError invitation_is_void when there is no inviter any more, or none who may give the role */
  async function giveRole(
    invitation: InvitationRow,
    user: { id: string; accountId: string | null },
    isPrimary: boolean,
    { requestId, address }: Pick<Caller, 'requestId' | 'address'>,
    tx: Tx,
  ): Promise<void> {
    const { accountId, role, invitedByType: type, invitedById } = invitation
    const principal = await inviters.principalNow({ type, id: invitedById }, accountId, tx)
    if (!principal) throw new AppError('invitation_is_void')
    const inviter = { principal, requestId, address }
    try {
      await assertMayGive(inviter, role.id, accountId, tx)
    } catch (cause) {
      if (cause instanceof AppError) throw new AppError('invitation_is_void', { cause })
      throw cause
    }
    await roles.assign(inviter, user, role.id, accountId, isPrimary, tx)
  }

  async function holdsRole(userId: string, { role, accountId }: InvitationRow, tx: Tx): Promise<boolean> {
    const held = await rolesRepository.listAssignments(userId, tx)
    return held.some(
      (one) => one.role.id === role.id && one.accountId === accountId && one.instanceId === null,
    )
  }

  /** Somebody new: at home in the account, with the role as the primary one, and an email that is proven. */
  async function acceptAsStranger(
    token: string,
    { password, fullName }: NewPerson,
    caller: AnonymousCaller,
  ): Promise<Acceptance> {
    const { email, accountId } = await openInvitation(token)
    if ((await users.findUserIdByEmail(email)) !== undefined) throw new AppError('invitation_needs_sign_in')
    if (password === undefined) {
      throw new AppError('validation_failed', {
        errors: [{ pointer: '/body/password', detail: 'is required of people who are new here' }],
      })
    }
    await usersService.assertPasswordFits(password, { email, fullName: fullName ?? null, accountId })
    const hash = await passwords.hash(password)
    return await transact(db, async (tx) => {
      const invitation = await openInvitation(token, tx)
      const { accountId } = invitation
      const person = { email: invitation.email, accountId, ...(fullName !== undefined && { fullName }) }
      const userId = await usersService.insertUser(person, hash, false, tx)
      if (!(await invitations.markAccepted(hashOf(token), userId, tx)))
        throw new AppError('invitation_not_found')
      await audit.append(
        {
          action: 'user.registered',
          caller,
          target: { type: 'user', id: userId },
          accountId,
          personal: { email: invitation.email },
        },
        tx,
      )
      await giveRole(invitation, { id: userId, accountId }, true, caller, tx)
      await users.verifyEmail(userId, tx)
      await record('invitation.accepted', caller, invitation, tx, { user_id: userId })
      return { invitation, userId, isNewUser: true }
    })
  }

  /** Somebody who is signed in becomes a member; the home account stays as it is. */
  async function acceptAsMember(token: string, caller: Caller, userId: string): Promise<Acceptance> {
    return await transact(db, async (tx) => {
      const user = (await users.lockUser(userId, tx)) ?? fail('user_not_found')
      const invitation = await openInvitation(token, tx)
      if (!isHolderOf(user, invitation)) throw new AppError('invitation_is_for_another')
      if (!(await invitations.markAccepted(hashOf(token), userId, tx)))
        throw new AppError('invitation_not_found')
      await accounts.lockForPeople(invitation.accountId, tx)
      await accounts.insertMember(invitation.accountId, userId, tx)
      if (!(await holdsRole(userId, invitation, tx))) await giveRole(invitation, user, false, caller, tx)
      if (user.email !== null && isSameMailbox(user.email, invitation.email))
        await users.verifyEmail(userId, tx)
      await record('invitation.accepted', caller, invitation, tx, { user_id: userId })
      return { invitation, userId, isNewUser: false }
    })
  }

  /** @throws AppError invitation_not_found for every token that opens nothing now, alike */
  async function openInvitation(token: string, tx?: Tx): Promise<InvitationRow> {
    return (await invitations.findByToken(hashOf(token), tx)) ?? fail('invitation_not_found')
  }

  return {
    listInvitations: async (
      accountId: string,
      state: InvitationState | undefined,
      request: PageRequest,
    ): Promise<Page<InvitationRow>> => {
      await accounts.getAccount(accountId)
      return await invitations.listInvitations(accountId, state, request)
    },

    /** @throws AppError invitation_not_found */
    async getInvitation(accountId: string, id: string): Promise<InvitationRow> {
      return (await invitations.findInvitation(accountId, id)) ?? fail('invitation_not_found')
    },

    /**
     * Invites by mail; the answer is the same for addresses that are known here and that are not.
     * @throws AppError account_not_found, role_not_found, grant_exceeds_own, invitation_exists, limit_reached,
     * too_many_requests, mail_not_configured, reauthentication_required
     */
    async invite(caller: Caller, accountId: string, email: string, roleId: string): Promise<InvitationRow> {
      const address = email.trim()
      await transact(db, async (tx) => {
        await assertMayGive(caller, roleId, accountId, tx)
        await roles.assertRecentFor(caller, [roleId], tx)
      })
      const isWelcome = await countMail(accountId, address)
      const token = newToken()
      return await transact(db, async (tx) => {
        const account = await accounts.lockForPeople(accountId, tx)
        if (!account.isActive) throw new AppError('account_not_found')
        await assertMayGive(caller, roleId, accountId, tx)
        assertBelow('accountInvitations', await invitations.countPending(accountId, tx))
        const id = newId()
        await invitations.insertInvitation(
          {
            id,
            accountId,
            roleId,
            email: address,
            emailNormalized: normalizeEmail(address),
            tokenHash: hashOf(token),
            inviter: inviterOf(caller),
            secondsToLive,
          },
          tx,
        )
        const invitation = (await invitations.findInvitation(accountId, id, tx)) ?? fail('account_not_found')
        await record('invitation.created', caller, invitation, tx)
        if (isWelcome) await mailInvitation(invitation, token, tx)
        return invitation
      })
    },

    /**
     * Mails it again with another link, good for the whole time; the link before opens nothing any more. From now on
     * it is the caller who invites.
     * @throws AppError invitation_not_found, invitation_is_closed, and what `invite` throws
     */
    async resend(caller: Caller, accountId: string, id: string): Promise<InvitationRow> {
      const { email, role } = await this.getInvitation(accountId, id)
      await transact(db, async (tx) => await roles.assertRecentFor(caller, [role.id], tx))
      const isWelcome = await countMail(accountId, email)
      const token = newToken()
      return await transact(db, async (tx) => {
        const invitation = await lockOpen(accountId, id, tx)
        await assertMayGive(caller, invitation.role.id, accountId, tx)
        // The link before stays good where none follows it. Whoever invites cannot tell: the rest is done alike.
        const renewal = {
          inviter: inviterOf(caller),
          secondsToLive,
          ...(isWelcome && { tokenHash: hashOf(token) }),
        }
        await invitations.renewInvitation(id, renewal, tx)
        await record('invitation.resent', caller, invitation, tx)
        const renewed = (await invitations.findInvitation(accountId, id, tx)) ?? fail('invitation_not_found')
        if (isWelcome) await mailInvitation(renewed, token, tx)
        return renewed
      })
    },

    /** @throws AppError invitation_not_found, invitation_is_closed, grant_exceeds_own */
    async revoke(caller: Caller, accountId: string, id: string): Promise<void> {
      await transact(db, async (tx) => {
        const invitation = await lockOpen(accountId, id, tx)
        await assertMayGive(caller, invitation.role.id, accountId, tx)
        await invitations.markRevoked(id, tx)
        await record('invitation.revoked', caller, invitation, tx)
      })
    },

    /** What a link is good for, and whether its address has an account here. @throws AppError invitation_not_found */
    async inspect(token: string): Promise<{ invitation: InvitationRow; needsSignIn: boolean }> {
      const invitation = await openInvitation(token)
      const userId = await users.findUserIdByEmail(invitation.email)
      return { invitation, needsSignIn: userId !== undefined }
    },

    /**
     * Joins the account: anew with a password, or as the person who is signed in and has the address. Of two who
     * try at once one does.
     * @throws AppError invitation_not_found, invitation_is_void, invitation_needs_sign_in, invitation_is_for_another,
     * insufficient_scope for who acts for another, password_change_required, mfa_enrolment_required,
     * validation_failed, password_blocklisted, sign_in_busy
     */
    async accept(
      caller: Caller | AnonymousCaller,
      person: UserPrincipal | undefined,
      token: string,
      input: NewPerson,
    ): Promise<Acceptance> {
      if (caller.principal === undefined || person === undefined)
        return await acceptAsStranger(token, input, { ...caller, principal: undefined })
      if (person.actingClientId !== undefined) throw new AppError('insufficient_scope')
      if (person.mustChangePassword) throw new AppError('password_change_required')
      if (person.isMfaMissing) throw new AppError('mfa_enrolment_required')
      return await acceptAsMember(token, caller, person.userId)
    },

    prune: invitations.prune,
  }

  async function lockOpen(accountId: string, id: string, tx: Tx): Promise<InvitationRow> {
    const invitation = (await invitations.lockInvitation(accountId, id, tx)) ?? fail('invitation_not_found')
    if (invitation.state === 'accepted' || invitation.state === 'revoked')
      throw new AppError('invitation_is_closed')
    return invitation
  }
}

const isHolderOf = ({ email }: UserRow, { emailNormalized }: InvitationRow): boolean =>
  email !== null && normalizeEmail(email) === emailNormalized

const inviterOf = ({ principal }: Caller): Inviter => ({
  type: principal.type,
  id: principalId(principal) ?? null,
})

/** 256 random bits, of which the SHA-256 is kept. */
const newToken = (): string => randomBytes(32).toString('base64url')
const hashOf = (token: string): string => createHash('sha256').update(token).digest('base64url')
