import { DEFAULT_ENVIRONMENT } from '../../src/db/client.ts'
import type { LinkData } from '../../src/mail-links/links.ts'
import type { LinkKind } from '../../src/mail-links/repository.ts'
import { hashOf } from '../../src/sessions/refresh-tokens.ts'
import type { TestApp } from './app.ts'

/** The token of a link that nobody was mailed. */
export async function aMailLink(
  { services }: TestApp,
  userId: string,
  kind: LinkKind,
  data: LinkData = {},
): Promise<string> {
  const token = crypto.randomUUID()
  await services.database.pool.query(
    `insert into mail_tokens (id, environment_id, user_id, kind, token_hash, data_sealed, expires_at)
     values ($1, $2, $3, $4, $5, $6, now() + interval '1 hour')`,
    [
      crypto.randomUUID(),
      DEFAULT_ENVIRONMENT,
      userId,
      kind,
      hashOf(token),
      services.vault.seal('mail', JSON.stringify(data)),
    ],
  )
  return token
}
