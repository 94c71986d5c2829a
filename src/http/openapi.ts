import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import plugin from 'fastify-plugin'
import { BUILTIN_RESOURCES } from '../permissions.ts'

type Options = { version: string; publicUrl: string }

const scopes = Object.fromEntries(
  Object.entries(BUILTIN_RESOURCES).flatMap(([resource, { name, actions }]) =>
    actions.map((action) => [`${resource}:${action}`, `${name}: ${action}`]),
  ),
)

/**
 * What the pages at /docs may load: their own files. Swagger UI writes inline styles and draws its icons from
 * data URLs. Nothing is upgraded to https, because the service may be tried at a plain address of the local network.
 */
const DOCS_POLICY = {
  'default-src': ["'self'"],
  'base-uri': ["'none'"],
  'form-action': ["'self'"],
  'frame-ancestors': ["'none'"],
  'img-src': ["'self'", 'data:'],
  'object-src': ["'none'"],
  'style-src': ["'self'", "'unsafe-inline'"],
}

const WORDMARK =
  '<svg xmlns="http://www.w3.org/2000/svg" width="120" height="40"><text x="0" y="28" fill="#fff" font-family="sans-serif" font-size="24" font-weight="bold">Postern</text></svg>'

/** Collects the OpenAPI 3.1 document from the routes and shows it at /docs. To be registered before them. */
export const openapi = plugin<Options>(
  async (app, { version, publicUrl }) => {
    const basePath = new URL(publicUrl).pathname.replace(/\/$/, '')
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.0',
        info: {
          title: 'Postern',
          version,
          description:
            'Sign-in, roles and permission checks. Errors are problem documents (RFC 9457); lists are arrays, with the next page in the Link header.',
          license: { name: 'MIT', identifier: 'MIT' },
        },
        servers: [{ url: publicUrl }],
        tags: [
          { name: 'Auth', description: 'Sign-in and passwords' },
          {
            name: 'Passkeys',
            description: 'Signing in without a password, and one’s own passkeys (WebAuthn)',
          },
          { name: 'Users', description: 'People' },
          { name: 'Roles', description: 'Roles, their permissions and who holds them' },
          { name: 'Accounts', description: 'Accounts (tenants) and their members' },
          { name: 'Invitations', description: 'Asking people by mail to join an account' },
          { name: 'Policy', description: 'What the roles, sets and relations of the application may do' },
          {
            name: 'AuthZEN',
            description: 'Decisions and searches of the OpenID AuthZEN Authorization API 1.0',
          },
          { name: 'Environments', description: 'Projects and their environments' },
          { name: 'API keys', description: 'Keys of machines' },
          { name: 'OAuth clients', description: 'Machines that get tokens of their own at /oauth2/token' },
          { name: 'Guides', description: 'The endpoints of Permit’s guides for FastAPI and Flask' },
          { name: 'Webhooks', description: 'Events that are sent to other services' },
          { name: 'Audit', description: 'What happened, and what was refused' },
          { name: 'Keys', description: 'What verifies tokens: public keys, and what has been revoked' },
          { name: 'Operation', description: 'For orchestrators' },
        ],
        components: {
          securitySchemes: {
            password: {
              type: 'oauth2',
              description: 'Sign in with email and password',
              flows: { password: { tokenUrl: `${basePath}/api/v1/auth/access-token`, scopes } },
            },
            bearer: { type: 'http', scheme: 'bearer', description: 'An access token or an API key' },
          },
        },
      },
      refResolver: {
        buildLocalReference: (json, _baseUri, _fragment, index) =>
          typeof json.$id === 'string' ? json.$id : `schema-${index}`,
      },
    })
    await app.register(swaggerUi, {
      routePrefix: '/docs',
      staticCSP: DOCS_POLICY,
      logo: { type: 'image/svg+xml', content: Buffer.from(WORDMARK) },
      theme: { title: 'Postern API' },
      // Closed groups: a page that draws several hundred operations at once takes tens of seconds.
      uiConfig: { deepLinking: true, docExpansion: 'none', filter: true, persistAuthorization: false },
      // The page calls the address it was opened at, whichever of the service's names that is.
      transformSpecification: (document) => ({ ...document, servers: [{ url: basePath || '/' }] }),
    })
    app.get('/api/v1/openapi.json', { config: { access: 'public' }, schema: { hide: true } }, async () =>
      app.swagger(),
    )
  },
  { name: 'openapi' },
)
