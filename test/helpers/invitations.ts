import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { hashOf } from '../../src/sessions/refresh-tokens.ts'
import type { TestApp } from './app.ts'

type Invited = { accountId: string; roleId: string; email: string }

/** An invitation of the operator’s that nobody was mailed, and what its link would have. */
export async function anInvitation(
  { services }: TestApp,
  { accountId, roleId, email }: Invited,
): Promise<{ id: string; token: string }> {
  const [id, token] = [crypto.randomUUID(), crypto.randomUUID()]
  await services.database.pool.query(
    `insert into account_invitations (id, environment_id, account_id, role_id, email, email_normalized, token_hash,
       invited_by_type, expires_at) values ($1, $2, $3, $4, $5, $5, $6, 'system', now() + interval '1 day')`,
    [id, DEFAULT_ENVIRONMENT, accountId, roleId, email, hashOf(token)],
  )
  return { id, token }
}
