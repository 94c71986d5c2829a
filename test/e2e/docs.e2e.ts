import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { buildTestApp } from '../helpers/app.ts'
import { PASSWORD, SUPER_ADMIN_EMAIL } from '../helpers/config.ts'

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** A browser with an empty profile, closed when the test ends. */
async function openBrowser(t: Test): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: FLAGS,
  })
  t.teardown(() => browser.close())
  return browser
}

/** Postern at an address of its own, which is not its PUBLIC_URL: the page must work at every name of the service. */
async function listen(t: Test): Promise<string> {
  const { app } = await buildTestApp(t)
  return await app.listen({ host: '127.0.0.1', port: 0 })
}

/** Everything that a developer would see in red: errors of the console, of scripts and of the network. */
function watchFaults(page: Page): string[] {
  const faults: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.text().includes('Content Security Policy')) {
      faults.push(message.text())
    }
  })
  page.on('pageerror', (error) => faults.push(error.message))
  page.on('requestfailed', (request) => faults.push(`${request.url()} ${request.failure()?.errorText}`))
  return faults
}

/** Keeps a picture when E2E_SCREENSHOTS names a folder. */
async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env['E2E_SCREENSHOTS']
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) })
}

/** The Authorize dialog with the OAuth 2 password form, filled in and sent. */
async function authorize(page: Page, password: string): Promise<void> {
  await page.locator('.scheme-container button.authorize').click()
  await page.locator('#oauth_username').fill(SUPER_ADMIN_EMAIL)
  await page.locator('#oauth_password').fill(password)
  await page
    .locator('.auth-container', { has: page.locator('#oauth_username') })
    .locator('button.authorize')
    .click()
}

t.test('the documentation signs in by its Authorize button and calls the API', async (t) => {
  const address = await listen(t)
  const page = await (await openBrowser(t)).newPage({ viewport: { width: 1200, height: 900 } })
  const faults = watchFaults(page)

  await page.goto(`${address}/docs`)
  await page.locator('#operations-tag-Users').waitFor()
  await picture(page, 'docs')
  await authorize(page, PASSWORD)
  await page.locator('.auth-container h6', { hasText: 'Authorized' }).first().waitFor()
  await picture(page, 'docs-authorized')
  await page.locator('.modal-ux button.btn-done').first().click()
  await page.locator('#operations-tag-Users').click()
  const operation = page.locator('#operations-Users-getOwnUser')
  await operation.locator('.opblock-summary-control').click()
  await operation.locator('button.try-out__btn').click()
  await operation.locator('button.execute').click()
  const answer = operation.locator('.live-responses-table tbody .response')
  await answer.waitFor()
  await operation.scrollIntoViewIfNeeded()
  await picture(page, 'docs-answer')

  t.match(await answer.locator('.response-col_status').textContent(), /^200/)
  t.match(await answer.locator('.highlight-code').textContent(), SUPER_ADMIN_EMAIL)
  t.strictSame(faults, [])
})

t.test('the documentation shows why a sign-in was refused', async (t) => {
  const address = await listen(t)
  const page = await (await openBrowser(t)).newPage()

  await page.goto(`${address}/docs`)
  await authorize(page, 'not the password at all')
  const errors = page.locator('.auth-container .errors')
  await errors.waitFor()

  t.match(await errors.textContent(), /Incorrect email or password|invalid_grant/)
})
