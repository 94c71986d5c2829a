import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import type { startAuthentication, startRegistration } from '@simplewebauthn/browser'
import { decodeJwt } from 'jose'
import { chromium, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'

type Answer = {
  status: number
  body: { access_token?: string; mfa_token?: string; [field: string]: unknown }
}

declare global {
  var SimpleWebAuthnBrowser: {
    startRegistration: typeof startRegistration
    startAuthentication: typeof startAuthentication
  }
  /** Sends JSON to Postern, as a page of the application does. */
  var call: (path: string, body?: object, token?: string) => Promise<Answer>
}

/** A page of an application at an origin of its own, with the library that its developers would use. */
async function serveApplication(t: Test): Promise<string> {
  const library = createRequire(import.meta.url).resolve('@simplewebauthn/browser')
  const bundle = await readFile(join(dirname(library), '..', 'dist', 'bundle', 'index.umd.min.js'))
  const server = createServer((request, response) => {
    const isScript = request.url === '/webauthn.js'
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html')
    response.end(isScript ? bundle : '<!doctype html><title>App</title><script src="/webauthn.js"></script>')
  })
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve))
  t.teardown(() => server.close())
  return `http://localhost:${(server.address() as AddressInfo).port}`
}

/** The page in Chromium, with an authenticator in it that says yes and verifies its user. */
async function openPage(t: Test, origin: string, api: string): Promise<Page> {
  const browser = await chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
    ],
  })
  t.teardown(() => browser.close())
  const page = await browser.newPage()
  const devtools = await page.context().newCDPSession(page)
  await devtools.send('WebAuthn.enable')
  await devtools.send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2',
      transport: 'internal',
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  })
  await page.goto(origin)
  await page.evaluate((base) => {
    globalThis.call = async (path, body, token) => {
      const response = await fetch(`${base}/api/v1/auth/${path}`, {
        method: 'POST',
        headers: {
          ...(body && { 'content-type': 'application/json' }),
          ...(token && { authorization: `Bearer ${token}` }),
        },
        ...(body && { body: JSON.stringify(body) }),
      })
      return { status: response.status, body: (await response.json()) as Answer['body'] }
    }
  }, api)
  return page
}

t.test(
  'a browser registers a passkey, signs in with it alone, and shows it as the second factor',
  async (t) => {
    const origin = await serveApplication(t)
    const { app } = await buildTestApp(t, { env: { PUBLIC_URL: 'http://localhost', CORS_ORIGINS: origin } })
    const api = (await app.listen({ host: 'localhost', port: 0 })).replace('127.0.0.1', 'localhost')
    const page = await openPage(t, origin, api)
    const credentials = { email: SUPER_ADMIN_EMAIL, password: PASSWORD }

    const registered = await page.evaluate(async (credentials) => {
      const token = (await call('login', credentials)).body.access_token
      const optionsJSON = (await call('passkeys/registration-options', undefined, token)).body
      const response = await SimpleWebAuthnBrowser.startRegistration({ optionsJSON: optionsJSON as never })
      return await call('passkeys', { name: 'This browser', response }, token)
    }, credentials)

    t.equal(registered.status, 201)
    t.match(registered.body, { name: 'This browser', is_user_verifying: true, transports: ['internal'] })

    const signedIn = await page.evaluate(async () => {
      const { challenge_token, options } = (await call('passkey/options', {})).body
      const response = await SimpleWebAuthnBrowser.startAuthentication({ optionsJSON: options as never })
      return await call('passkey/verify', { challenge_token, response })
    })

    t.equal(signedIn.status, 200)
    t.match(decodeJwt(signedIn.body.access_token ?? ''), {
      amr: ['hwk', 'user', 'mfa'],
      acr: 'urn:postern:acr:2',
    })

    const [first, second] = await page.evaluate(async (credentials) => {
      const first = await call('login', credentials)
      const { mfa_token } = first.body
      const options = (await call('mfa/passkey/options', { mfa_token })).body
      const passkey = await SimpleWebAuthnBrowser.startAuthentication({ optionsJSON: options as never })
      return [first, await call('mfa/verify', { mfa_token, passkey })]
    }, credentials)

    t.equal(first?.status, 403)
    t.equal(second?.status, 200)
    t.match(decodeJwt(second?.body.access_token ?? ''), { acr: 'urn:postern:acr:2' })
  },
)
