import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { onTestFinished } from 'vitest'

/** The browser of this machine; nothing is downloaded. `.ci/run` installs it, and a test without it fails. */
function chromiumPath(): string {
  const names = ['chromium', 'chromium-browser', 'google-chrome']
  const found = (process.env.PATH ?? '').split(delimiter).flatMap(directory => names.map(name => join(directory, name))).find(path => existsSync(path))
  if (found === undefined) throw new Error(`Cannot look at the page: found none of ${names.join(', ')} on PATH, needed one (apt-get install chromium)`)
  return found
}

export interface Tab {
  readonly page: Page
  /** Everything that the browser complained of: errors, refusals by the policy, requests that failed. */
  readonly complaints: readonly string[]
}

/** Opens the address in a real browser, which is gone with the test. */
export async function openPage(address: string, options: BrowserContextOptions = {}): Promise<Tab> {
  const browser: Browser = await chromium.launch({ executablePath: chromiumPath(), args: ['--no-sandbox', '--disable-dev-shm-usage'] })
  onTestFinished(() => browser.close())
  const context = await browser.newContext(options)
  const page = await context.newPage()
  page.setDefaultTimeout(60_000)
  const complaints: string[] = []
  page.on('console', message => { if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text()) })
  page.on('pageerror', error => { complaints.push(String(error)) })
  page.on('dialog', dialog => { complaints.push(`dialog: ${dialog.message()}`); void dialog.dismiss() })
  await page.goto(address)
  return { page, complaints }
}
