import { request, type IncomingMessage } from 'node:http'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createPageServer } from '../../../src/control/server.ts'
import { METRICS_URL, ROUTES } from '../../../src/control/routes.ts'
import { isLoopbackHost } from '../../../src/control/guard.ts'
import { MAX_PAGE_READERS } from '../../../src/limits.ts'
import { silentLogger } from '../../../src/log.ts'
import { PageFiles } from '../../../src/page/files.ts'
import { startControl } from '../../helpers/control.ts'
import { fakeTasks } from '../../helpers/fake-tasks.ts'

type Place = { readonly port: number } | { readonly socketPath: string }
interface Asked { readonly method?: string, readonly headers?: Readonly<Record<string, string>> }

async function startPage(): Promise<{ port: number }> {
  const server = createPageServer({ tasks: fakeTasks(), page: new PageFiles(), logger: silentLogger }, { host: '127.0.0.1', port: 0 })
  await server.start()
  onTestFinished(() => server.stop())
  return { port: server.port ?? 0 }
}

function open(place: Place, path: string, { method = 'GET', headers = {} }: Asked = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', ...place, path, method, headers, agent: false }, resolve).once('error', reject).end()
  })
}

async function get(place: Place, path: string, asked: Asked = {}): Promise<{ status: number, headers: IncomingMessage['headers'], body: string }> {
  const response = await open(place, path, asked)
  let body = ''
  for await (const part of response.setEncoding('utf8')) body += String(part)
  return { status: response.statusCode ?? 0, headers: response.headers, body }
}

/** Sends what `get` would, with a `Host` of one's own. */
const from = (host: string, headers: Record<string, string> = {}): Asked => ({ headers: { host, ...headers } })

describe('the page\'s port', () => {
  test('shows the page, under a policy that lets nothing in', async () => {
    const place = await startPage()
    const root = await get(place, '/')
    expect([root.status, root.headers.location]).toEqual([302, '/page/'])
    const page = await get(place, '/page/')
    expect(page.status).toBe(200)
    expect(page.headers).toMatchObject({ 'content-type': 'text/html; charset=utf-8', 'x-content-type-options': 'nosniff', 'cross-origin-resource-policy': 'same-origin', 'referrer-policy': 'no-referrer' })
    const policy = page.headers['content-security-policy']
    for (const part of ['default-src \'none\'', 'script-src \'self\';', 'frame-ancestors \'none\'', 'require-trusted-types-for \'script\'']) expect(policy).toContain(part)
    expect(policy).not.toContain('unsafe')
    expect(page.body).not.toMatch(/<script(?![^>]*src=)|\son\w+=|\sstyle=/)
  })

  test('says when a file is what the browser has already', async () => {
    const place = await startPage()
    const { headers: { etag = '' }, body } = await get(place, '/page/main.js')
    expect(body).toContain('./lib/lit-html.js')
    const again = await get(place, '/page/main.js', { headers: { 'if-none-match': etag } })
    expect([again.status, again.body]).toEqual([304, ''])
  })

  test('answers what the page asks', async () => {
    const place = await startPage()
    for (const path of ['status', 'peers', 'bans', 'transfers', 'queue', 'names', 'images', 'images/web-1', 'images/web-1/explanation', 'images/web-1/chunks']) {
      expect((await get(place, `/v1/${path}`)).status, path).toBe(200)
    }
  })

  test('has nothing that changes anything, or takes long', async () => {
    const place = await startPage()
    for (const { method, url } of ROUTES.filter(({ method }) => method !== 'GET')) {
      const { status, body } = await get(place, url.replace(/:\w+/, 'web-1'), { method })
      expect([url, status, JSON.parse(body)]).toEqual([url, 403, { error: expect.objectContaining({ code: 'refused' }) as unknown }])
    }
    for (const path of ['/v1/usage', METRICS_URL, '/page/../v1/usage', '/page/nothing.js', '/page/%2e%2e/files.ts']) expect((await get(place, path)).status, path).toBe(404)
  })

  test.each(['evil.example', 'evil.example:4652', 'localhost.evil.example', '127.0.0.1.evil.example', '192.0.2.1', '[::2]', '0.0.0.0', 'x'])('is not to be reached as %j', async host => {
    const place = await startPage()
    for (const path of ['/page/', '/v1/images', '/v1/events']) expect((await get(place, path, from(host))).status, path).toBe(403)
  })

  test.each(['localhost', 'LOCALHOST:8080', '127.0.0.1:4652', '127.1.2.3', '[::1]:4652'])('is to be reached as %s', async host => {
    expect(isLoopbackHost(host)).toBe(true)
    expect((await get(await startPage(), '/v1/images', from(host))).status).toBe(200)
  })

  test('tells nothing to pages of other origins, which may only link to it', async () => {
    const place = await startPage()
    for (const site of ['cross-site', 'same-site']) {
      expect((await get(place, '/v1/images', from('localhost', { 'sec-fetch-site': site }))).status).toBe(403)
      expect((await get(place, '/v1/events', from('localhost', { 'sec-fetch-site': site, 'sec-fetch-dest': 'document' }))).status).toBe(403)
      expect((await get(place, '/page/', from('localhost', { 'sec-fetch-site': site, 'sec-fetch-dest': 'document' }))).status).toBe(200)
    }
    expect((await get(place, '/v1/images', from('localhost', { 'sec-fetch-site': 'same-origin' }))).status).toBe(200)
    // An older browser names the origin alone.
    const { socket: socketPath } = await startControl()
    for (const origin of ['http://evil.example', 'http://localhost:81', 'null']) {
      for (const where of [place, { socketPath }]) expect((await get(where, '/v1/images', from('localhost:80', { origin }))).status, origin).toBe(403)
    }
    expect((await get(place, '/v1/images', from('localhost:80', { origin: 'http://localhost:80' }))).status).toBe(200)
  })

  test('has a bounded number of readers, and room again when one goes', async () => {
    const place = await startPage()
    const readers = await Promise.all(Array.from({ length: MAX_PAGE_READERS }, () => open(place, '/v1/events')))
    expect(readers.map(({ statusCode }) => statusCode)).toEqual(readers.map(() => 200))
    expect((await get(place, '/v1/events')).status).toBe(403)
    const [first] = readers
    first?.destroy()
    let status = 0
    for (let tries = 0; tries < 1000 && status !== 200; tries++) {
      const next = await open(place, '/v1/events')
      status = next.statusCode ?? 0
      next.destroy()
    }
    expect(status).toBe(200)
    for (const reader of readers) reader.destroy()
  })
})

describe('the control socket', () => {
  test('shows the page as well', async () => {
    const { socket: socketPath } = await startControl()
    expect((await get({ socketPath }, '/page/', from('localhost'))).headers['content-security-policy']).toContain('default-src \'none\'')
    expect((await get({ socketPath }, '/page')).headers.location).toBe('/page/')
  })

  // Where somebody forwards a port to it, every page that the browser has open can reach it.
  test.each([{ 'user-agent': 'Mozilla/5.0' }, { origin: 'http://localhost:8080' }, { 'sec-fetch-site': 'none' }, { 'sec-ch-ua': 'x' }])('lets a browser (%j) only read, and only as loopback', async marks => {
    const { socket: socketPath } = await startControl()
    const asked = (host: string, method = 'GET'): Asked => ({ method, headers: { host, ...marks } })
    expect((await get({ socketPath }, '/v1/images', asked('localhost:8080'))).status).toBe(200)
    expect((await get({ socketPath }, '/v1/images', asked('evil.example'))).status).toBe(403)
    expect((await get({ socketPath }, '/v1/gc', asked('localhost:8080', 'POST'))).status).toBe(403)
    expect((await get({ socketPath }, '/v1/images/web-1', asked('localhost:8080', 'DELETE'))).status).toBe(403)
  })

  test('takes everything from a program, whatever host it names', async () => {
    const { socket: socketPath } = await startControl()
    expect((await get({ socketPath }, '/v1/images', from('%2Frun%2Fnarvik%2Fnarvik.sock', { 'accept-language': '*', 'sec-fetch-mode': 'cors' }))).status).toBe(200)
    expect((await get({ socketPath }, '/v1/gc', { method: 'POST', headers: { host: 'narvik' } })).status).toBe(200)
  })
})
