import t from 'tap'
import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import { newId } from '../../src/ids.ts'
import { buildTestApp } from '../helpers/app.ts'
import { eventually } from '../helpers/processes.ts'

/** A kind of row: `old` and `fresh` are ages by which it goes and stays. Its insert takes a name and an age. */
type Kind = { job: string; table: string; name: string; old: string; fresh: string; insert: string }

const ENVIRONMENT = `'${DEFAULT_ENVIRONMENT}'`

const attempts = (kind: string, old: string, fresh: string): Kind => ({
  job: 'prune_login_attempts',
  table: 'login_attempts',
  name: 'key_hash',
  old,
  fresh,
  insert: `insert into login_attempts (kind, key_hash, failures, last_attempt_at)
    values ('${kind}', $1, 1, now() - $2::interval)`,
})

const invitation = (status: string, updatedAgo: string, expiredAgo: string): Kind => ({
  job: 'prune_invitations',
  table: 'account_invitations',
  name: 'token_hash',
  old: '31 days',
  fresh: '29 days',
  insert: `insert into account_invitations (id, environment_id, account_id, role_id, email, email_normalized,
      token_hash, invited_by_type, status, updated_at, expires_at)
    select gen_random_uuid(), ${ENVIRONMENT}, a.id, r.id, $1, $1, $1, 'system', '${status}',
      now() - ${updatedAgo}, now() - ${expiredAgo} from accounts a, roles r limit 1`,
})

const KINDS: readonly Kind[] = [
  attempts('address', '25 hours', '23 hours'),
  attempts('email', '91 days', '89 days'),
  attempts('device', '401 days', '399 days'),
  {
    job: 'prune_seen_tokens',
    table: 'seen_tokens',
    name: 'key_hash',
    old: '1 hour',
    fresh: '-1 hour',
    insert: `insert into seen_tokens (kind, key_hash, expires_at) values ('dpop_proof', $1, now() - $2::interval)`,
  },
  {
    job: 'prune_sessions',
    table: 'sessions',
    name: 'id',
    old: '25 hours',
    fresh: '23 hours',
    insert: `insert into sessions (id, environment_id, user_id, client_id, expires_at, ended_at)
      select $1::uuid, ${ENVIRONMENT}, id, 'first-party', now() + interval '1 day', now() - $2::interval
      from users limit 1`,
  },
  {
    job: 'prune_challenges',
    table: 'challenges',
    name: 'token_hash',
    old: '1 minute',
    fresh: '-1 minute',
    insert: `insert into challenges (id, environment_id, kind, token_hash, expires_at)
      values (gen_random_uuid(), ${ENVIRONMENT}, 'mfa', $1, now() - $2::interval)`,
  },
  {
    job: 'prune_challenges',
    table: 'totp_factors',
    name: 'secret_sealed',
    old: '2 hours',
    fresh: '1 minute',
    insert: `with somebody as (insert into users (id, environment_id, key, search_text)
        values (gen_random_uuid(), ${ENVIRONMENT}, $1, $1) returning id)
      insert into totp_factors (id, environment_id, user_id, secret_sealed, created_at)
      select gen_random_uuid(), ${ENVIRONMENT}, id, $1, now() - $2::interval from somebody`,
  },
  {
    job: 'prune_mail_tokens',
    table: 'mail_tokens',
    name: 'token_hash',
    old: '1 minute',
    fresh: '-1 minute',
    insert: `insert into mail_tokens (id, environment_id, user_id, kind, token_hash, expires_at)
      select gen_random_uuid(), ${ENVIRONMENT}, id, 'magic_link', $1, now() - $2::interval from users limit 1`,
  },
  invitation('revoked', '$2::interval', "interval '-1 day'"),
  invitation('pending', "interval '1 day'", '$2::interval'),
  {
    job: 'prune_policy_changes',
    table: 'policy_changes',
    name: 'refs[1]',
    old: '11 minutes',
    fresh: '9 minutes',
    insert: `insert into policy_changes (environment_id, version, kind, refs, created_at)
      values (${ENVIRONMENT}, 0, 'user', array[$1], now() - $2::interval)`,
  },
  {
    job: 'prune_decision_log',
    table: 'decision_log',
    name: 'user_key',
    old: '8 days',
    fresh: '6 days',
    insert: `insert into decision_log
        (id, environment_id, decided_at, user_key, action, resource, is_allowed, reason)
      values (gen_random_uuid(), ${ENVIRONMENT}, now() - $2::interval, $1, 'read', 'post', false, 'no_permission')`,
  },
  {
    job: 'prune_revocations',
    table: 'revocations',
    name: 'ref',
    old: '1 minute',
    fresh: '-1 minute',
    insert: `insert into revocations (version, kind, ref, expires_at) values (0, 'token', $1, now() - $2::interval)`,
  },
  {
    job: 'prune_webhook_deliveries',
    table: 'webhook_deliveries',
    name: 'subject',
    old: '31 days',
    fresh: '29 days',
    insert: `insert into webhook_deliveries (id, webhook_id, audit_event_id, event, subject, status, created_at)
      select gen_random_uuid(), id, gen_random_uuid(), 'user.created', $1, 'delivered', now() - $2::interval
      from webhooks`,
  },
]

/** They have tests of their own, in test/erasure and test/audit-chain. */
const ELSEWHERE = ['erase_deleted_users', 'apply_audit_retention']

t.test('what is of no more use is cleared away by whoever serves, each kind by its rule', async (t) => {
  const { services } = await buildTestApp(t, { env: { DECISION_LOG_RETENTION_DAYS: '7' } })
  const { pool } = services.database
  await pool.query(
    `insert into webhooks (id, environment_id, url, events, secret_sealed)
    values (gen_random_uuid(), ${ENVIRONMENT}, 'https://example.com', '{*}', '')`,
  )
  const rows = KINDS.map((kind) => ({ ...kind, oldName: newId(), freshName: newId() }))
  for (const { insert, old, fresh, oldName, freshName } of rows) {
    await pool.query(insert, [oldName, old])
    await pool.query(insert, [freshName, fresh])
  }
  const left = async () => {
    const found = await Promise.all(
      rows.map(async ({ table, name, oldName, freshName }) => {
        const { rows } = await pool.query<{ name: string }>(
          `select ${name}::text as name from ${table} where ${name}::text = any($1::text[])`,
          [[oldName, freshName]],
        )
        return rows.map((row) => row.name).sort()
      }),
    )
    return found
  }
  t.same(
    (await left()).map(({ length }) => length),
    rows.map(() => 2),
  )

  services.start()
  const stays = rows.map(({ freshName }) => [freshName])
  await eventually(async () => (await left()).flat().length === rows.length)

  t.same(await left(), stays)
  const { rows: jobs } = await pool.query<{ job: string }>(
    `select distinct split_part(task_identifier, ':', 2) as job from graphile_worker.jobs
    where task_identifier like 'schedule:%' order by 1`,
  )
  t.same(
    jobs.map(({ job }) => job),
    [...new Set([...KINDS.map(({ job }) => job), ...ELSEWHERE])].sort(),
    'what is scheduled has its row here',
  )
})
