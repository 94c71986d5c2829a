import { PROOF_ALGORITHMS } from '../clients/jwks.ts'
import { AUTH_METHODS, GRANT_TYPES } from '../clients/repository.ts'
import { BUILTIN_RESOURCES } from '../permissions.ts'

export const TOKEN_ENDPOINT = '/oauth2/token'
export const REVOCATION_ENDPOINT = '/oauth2/revoke'
export const INTROSPECTION_ENDPOINT = '/oauth2/introspect'
const WELL_KNOWN = '/.well-known/oauth-authorization-server'

/** Where clients look for the metadata of an issuer: with a path, the name goes before it (RFC 8414 §3.1). */
export function metadataPaths(issuer: string): string[] {
  const path = new URL(issuer).pathname.replace(/\/$/, '')
  return path === '' ? [WELL_KNOWN] : [WELL_KNOWN, `${WELL_KNOWN}${path}`]
}

const CONFIDENTIAL = AUTH_METHODS.filter((method) => method !== 'none')
const SCOPES = Object.entries(BUILTIN_RESOURCES).flatMap(([resource, { actions }]) =>
  actions.map((action) => `${resource}:${action}`),
)

/** What OAuth clients can know of this service (RFC 8414 §2). */
export const metadataOf = (issuer: string) => ({
  issuer,
  token_endpoint: `${issuer}${TOKEN_ENDPOINT}`,
  jwks_uri: `${issuer}/.well-known/jwks.json`,
  revocation_endpoint: `${issuer}${REVOCATION_ENDPOINT}`,
  introspection_endpoint: `${issuer}${INTROSPECTION_ENDPOINT}`,
  scopes_supported: SCOPES,
  grant_types_supported: GRANT_TYPES,
  // Required by §2, and empty because there is no authorization endpoint; clients that ask for it take the empty list.
  response_types_supported: [],
  token_endpoint_auth_methods_supported: AUTH_METHODS,
  token_endpoint_auth_signing_alg_values_supported: PROOF_ALGORITHMS,
  revocation_endpoint_auth_methods_supported: AUTH_METHODS,
  revocation_endpoint_auth_signing_alg_values_supported: PROOF_ALGORITHMS,
  introspection_endpoint_auth_methods_supported: CONFIDENTIAL,
  introspection_endpoint_auth_signing_alg_values_supported: PROOF_ALGORITHMS,
  dpop_signing_alg_values_supported: PROOF_ALGORITHMS,
})
