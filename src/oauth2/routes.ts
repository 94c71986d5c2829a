import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { forbidCaching } from '../auth/oauth-errors.ts'
import type { Client } from '../clients/in-use.ts'
import { GRANT_TYPES, type GrantType } from '../clients/repository.ts'
import { AppError, fail } from '../errors.ts'
import { anywhere } from '../permissions.ts'
import type { Services } from '../services.ts'
import { sendOAuth2Error } from './errors.ts'
import { type Form, readForm } from './form.ts'
import {
  INTROSPECTION_ENDPOINT,
  metadataOf,
  metadataPaths,
  REVOCATION_ENDPOINT,
  TOKEN_ENDPOINT,
} from './metadata.ts'
import { ACCESS_TOKEN_URN, type IssuedTokens } from './service.ts'

type Dependencies = Pick<Services, 'oauth2' | 'clientAuthentication' | 'dpop' | 'issuer' | 'metrics'>

const FORM = 'application/x-www-form-urlencoded'
const MOST_BYTES = 65_536
/** The types of token that an exchange takes and gives: the same thing under two names (RFC 8693 §3). */
const TOKEN_TYPES = [ACCESS_TOKEN_URN, 'urn:ietf:params:oauth:token-type:jwt']

/** The endpoints of OAuth 2 (RFC 6749, 7009, 7662, 8414, 8693, 8707, 9449). They take forms and answer as OAuth does. */
export function oauth2Routes(dependencies: Dependencies): FastifyPluginAsyncTypebox {
  const { oauth2, clientAuthentication, dpop, issuer, metrics } = dependencies

  async function clientOf(request: FastifyRequest, form: Form): Promise<Client> {
    return await clientAuthentication.authenticate({
      form,
      authorization: request.headers.authorization,
      endpoint: `${issuer}${pathOf(request)}`,
      requestId: request.id,
      address: request.ip,
    })
  }

  /** The key that the request proves, if it does (RFC 9449 §5). @throws AppError invalid_dpop_proof */
  async function provenKey(request: FastifyRequest, { isDpopRequired }: Client): Promise<string | undefined> {
    const proof = request.headers['dpop']
    if (proof === undefined) {
      return isDpopRequired
        ? fail('invalid_dpop_proof', { detail: 'The client must send a DPoP proof' })
        : undefined
    }
    return await dpop.verify(String(proof), { method: request.method, path: pathOf(request) })
  }

  /** Anybody can be a public client, and each proof is noted: what cannot succeed is refused before. */
  function assertMayCome(client: Client, grantType: GrantType, form: Form): void {
    oauth2.assertMayUse(client, grantType)
    if (client.authMethod === 'none' && !oauth2.isRefreshToken(required(form, 'refresh_token')))
      throw new AppError('invalid_refresh_token')
  }

  async function grant(grantType: GrantType, request: FastifyRequest, form: Form): Promise<IssuedTokens> {
    const client = await clientOf(request, form)
    if (request.headers['dpop'] !== undefined) assertMayCome(client, grantType, form)
    const asked = {
      client,
      scope: form.get('scope'),
      resources: form.all('resource'),
      dpopThumbprint: await provenKey(request, client),
    }
    switch (grantType) {
      case 'client_credentials':
        return await oauth2.clientCredentials(asked)
      case 'refresh_token':
        return await oauth2.refresh({
          refreshToken: required(form, 'refresh_token'),
          account: form.get('account'),
          requestId: request.id,
          address: request.ip,
          ...asked,
        })
      case 'urn:ietf:params:oauth:grant-type:token-exchange':
        return await oauth2.exchange({
          subjectToken: typedToken(form, 'subject_token') ?? required(form, 'subject_token'),
          actorToken: typedToken(form, 'actor_token'),
          audiences: requestedAudiences(form),
          ...asked,
        })
    }
  }

  return async (app) => {
    await app.register(async (endpoints: Parameters<FastifyPluginAsyncTypebox>[0]) => {
      endpoints.removeContentTypeParser('application/json')
      endpoints.addContentTypeParser(
        FORM,
        { parseAs: 'string', bodyLimit: MOST_BYTES },
        (_request, body, done) => done(null, body),
      )
      endpoints.setErrorHandler(sendOAuth2Error)
      const hidden = { config: { access: 'public' }, schema: { hide: true } } as const

      endpoints.post(TOKEN_ENDPOINT, hidden, async (request, reply) => {
        const form = formOf(request)
        const grantType = grantTypeOf(form)
        try {
          const issued = await grant(grantType, request, form)
          metrics.onTokenRequest(grantType, 'issued')
          return answer(reply, issued)
        } catch (error) {
          metrics.onTokenRequest(grantType, 'refused')
          throw error
        }
      })

      endpoints.post(REVOCATION_ENDPOINT, hidden, async (request, reply) => {
        const form = formOf(request)
        const client = await clientOf(request, form)
        await oauth2.revoke(client, required(form, 'token'), { requestId: request.id, address: request.ip })
        forbidCaching(reply)
        return reply.code(200).send()
      })

      endpoints.post(INTROSPECTION_ENDPOINT, hidden, async (request, reply) => {
        const form = formOf(request)
        const client = await introspector(request, form)
        return answer(reply, await oauth2.introspect(client, required(form, 'token')))
      })

      /** The client that asks, or nobody when a token says that every session may be read. */
      async function introspector(request: FastifyRequest, form: Form): Promise<Client | undefined> {
        if (!/^(bearer|dpop)(\s|$)/i.test(request.headers.authorization ?? '')) {
          const client = await clientOf(request, form)
          // RFC 7662 §2.1: whoever can be anybody learns nothing of tokens.
          return client.authMethod === 'none' ? fail('invalid_client') : client
        }
        await app.authenticate(request)
        const needed = anywhere('postern.sessions:read')
        if (!request.principal?.scopes.has(needed))
          throw new AppError('insufficient_scope', { requiredScope: needed })
        return undefined
      }
    })

    for (const path of metadataPaths(issuer)) {
      app.get(path, { config: { access: 'public' }, schema: { hide: true } }, async (_request, reply) => {
        reply.header('cache-control', 'public, max-age=300')
        return metadataOf(issuer)
      })
    }
  }
}

const pathOf = ({ url }: FastifyRequest): string => url.split('?', 1)[0] ?? url

/** @throws AppError invalid_request for a body of any other type, or none */
function formOf({ body }: FastifyRequest): Form {
  return readForm(
    typeof body === 'string' ? body : fail('invalid_request', { detail: `Send a form: ${FORM}` }),
  )
}

function required(form: Form, name: string): string {
  return form.get(name) ?? fail('invalid_request', { detail: `The parameter ${name} is missing` })
}

function grantTypeOf(form: Form): GrantType {
  const given = required(form, 'grant_type')
  return GRANT_TYPES.find((grant) => grant === given) ?? fail('unsupported_grant_type')
}

/** A token and its type, which belong together (RFC 8693 §2.1). @throws AppError invalid_request */
function typedToken(form: Form, name: 'subject_token' | 'actor_token'): string | undefined {
  const [token, type] = [form.get(name), form.get(`${name}_type`)]
  if (token === undefined && type === undefined) return undefined
  if (token === undefined || type === undefined || !TOKEN_TYPES.includes(type)) {
    throw new AppError('invalid_request', {
      detail: `The ${name} must be an access token, and its type say so`,
    })
  }
  return token
}

/** @throws AppError invalid_request for a type of token that is not to be had */
function requestedAudiences(form: Form): readonly string[] {
  const type = form.get('requested_token_type')
  if (type !== undefined && !TOKEN_TYPES.includes(type))
    throw new AppError('invalid_request', { detail: 'Only access tokens are to be had' })
  return form.all('audience')
}

/** JSON that nobody keeps. Written by hand, because making a serializer costs more than these few fields. */
function answer(reply: FastifyReply, body: object): FastifyReply {
  forbidCaching(reply)
  return reply.type('application/json; charset=utf-8').serializer(String).send(JSON.stringify(body))
}
