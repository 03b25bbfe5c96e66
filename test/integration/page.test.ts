import { EventEmitter, once } from 'node:events'
import { chmod, open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { HostEvent, ImageDetailsJson, ImageJson, Tasks } from '../../src/control/api.ts'
import { createPageServer } from '../../src/control/server.ts'
import { NarvikError } from '../../src/errors.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { PageFiles } from '../../src/page/files.ts'
import { openPage, type Tab } from '../helpers/browser.ts'
import { fakeTasks, goodImage } from '../helpers/fake-tasks.ts'
import { type CommandResult, temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'
import { startSwarmPeer } from '../helpers/swarm-peer.ts'

const MIB = 1024 * 1024

/** Where the daemon says that its page is. */
function addressOf(host: TestDaemon): string {
  const [address] = /http:\/\/127\.0\.0\.1:\d+\//.exec(host.log) ?? []
  if (address === undefined) throw new Error(`no page in the log:\n${host.log}`)
  return address
}

/** A host that serves the image with one wrong byte. */
async function startLiar(bootstrap: Pick<TestDaemon, 'addresses'>): Promise<{ liar: TestDaemon, image: ImageJson }> {
  const liar = await TestDaemon.start({ bootstrap: [bootstrap] })
  const source = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(source, 0.5 * MIB)
  const image = await liar.json<ImageJson>('import', source)
  const file = join(liar.dataDir, 'images', NarHash.parse(image.narHash).toNix32())
  await chmod(file, 0o600)
  const handle = await open(file, 'r+')
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, 300_000)
  await handle.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, 300_000)
  await handle.close()
  return { liar, image }
}

describe('the page of a real host', () => {
  it('shows the fleet, a transfer as it moves, its chunks as they come, and a rejected image with what speaks against it', async () => {
    const tree = join(await temporaryDirectory(), 'disk.raw')
    await makeRawDisk(tree, 16 * MIB)
    const source = await startSwarmPeer({ tree, bytesPerSecond: 1.5 * MIB })
    const { liar, image: bad } = await startLiar(source)
    const host = await TestDaemon.start({ bootstrap: [source, liar], env: { NARVIK_PAGE_PORT: '0', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '3' } })
    await host.untilPeers(2)
    const { page, complaints } = await openPage(addressOf(host))

    await page.waitForSelector(`#fleet [title="${source.peerId}"]`)
    await page.waitForSelector(`#fleet [title="${liar.peerId}"]`)
    expect(await page.textContent('#transfers')).toContain('Nothing is being received.')
    expect(await page.textContent('#quarantine')).toContain('Empty')

    const rejecting: CommandResult = await host.run('fetch', bad.narHash, '--name', 'bad')
    expect(rejecting.exitCode).toBe(5)
    const held = page.locator('#quarantine .held.rejected')
    await held.locator('.compared').waitFor()
    const { journal } = await host.client.show(bad.narHash)
    const judge = journal.findLast(({ to }) => to === 'rejected')?.evidence?.verdict?.stages.find(({ stage }) => stage === 'nar-hash')
    expect(await held.locator('.expected code').allTextContents()).toEqual([bad.narHash])
    expect(await held.locator('.found code').allTextContents()).toEqual([judge?.found])
    expect(await held.locator('.reason').textContent()).toBe('wrong-nar-hash')
    expect(await held.locator(`tr:has([title="${liar.peerId}"]) .outcome`).textContent()).toBe('lied')
    await page.locator(`#fleet tr:has(td:first-child [title="${liar.peerId}"])`, { hasText: 'banned' }).waitFor()

    const fetching = host.json<ImageJson>('fetch', source.narHash, '--name', 'disk')
    fetching.catch(() => undefined)
    await page.waitForSelector('.transfer .map .c8')
    expect(await page.locator('.map span').count()).toBeGreaterThan(50)
    // One more is full than there was: `nth` counts from 0.
    await page.locator('.map .c8').nth(await page.locator('.map .c8').count()).waitFor()
    expect(await page.textContent('.transfer')).toMatch(/disk.*receiving.*chunks are here and proven/s)
    expect(await page.title()).toMatch(/^\(1\) /)
    // Without a press of a key: the image ends where it belongs.
    expect((await fetching).state).toBe('verified')
    await page.locator('#images tr', { hasText: 'disk' }).locator('.state.verified').waitFor()
    await page.locator('#transfers', { hasText: 'Nothing is being received.' }).waitFor()

    await page.click('#images a.name:text-is("disk")')
    await page.waitForSelector('#facts')
    expect(await page.textContent('h1')).toMatch(/disk.*verified/s)
    expect(await page.textContent('#facts')).toContain(source.narHash)
    await page.locator('#sources', { hasText: 'from 1 peer' }).waitFor()
    expect(complaints).toEqual([])

    // A host that does not answer is said to be one, and what was known stays.
    await host.stop()
    await page.waitForSelector('.notice.bad')
    expect(await page.textContent('.connection')).toBe('no answer')
    expect(await page.textContent('#facts')).toContain(source.narHash)
    const again = await TestDaemon.start({ dir: host.dir, env: { NARVIK_PAGE_PORT: new URL(addressOf(host)).port } })
    await page.waitForSelector('.connection.live')
    expect(await page.locator('.notice.bad').count()).toBe(0)
    await again.stop()
  })

  it('is closed where no port is set, and not to be opened to others', async () => {
    const host = await TestDaemon.start()
    expect(host.log).not.toMatch(/ page /)
    await expect(TestDaemon.start({ env: { NARVIK_PAGE_PORT: '0', NARVIK_PAGE_HOST: '0.0.0.0' } })).rejects.toThrow(/Cannot use page\.host \(NARVIK_PAGE_HOST\): found .*0\.0\.0\.0.*, needed a loopback address/)
  })
})

/** Answers that are given when the test says so. */
class LateAnswers {
  #waiting: (() => void) | undefined
  readonly #calls = new EventEmitter()

  give<T>(value: T): Promise<T> {
    return new Promise(resolve => {
      this.#waiting = () => { resolve(value) }
      this.#calls.emit('call')
    })
  }

  /** Waits until an answer is waited for. */
  async asked(): Promise<void> {
    if (this.#waiting === undefined) await once(this.#calls, 'call')
  }

  async answer(): Promise<void> {
    await this.asked()
    this.#waiting?.()
    this.#waiting = undefined
  }
}

/** Markup that would run, were it taken as such. */
const EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>\'"&{{evil}}</td>'

async function showFake(overrides: Partial<Tasks>): Promise<Tab> {
  const server = createPageServer({ tasks: fakeTasks(overrides), page: new PageFiles(), logger: silentLogger }, { host: '127.0.0.1', port: 0 })
  await server.start()
  onTestFinished(() => server.stop())
  return openPage(`http://127.0.0.1:${server.port ?? 0}/`, { viewport: { width: 390, height: 844 } })
}

/** Every text of a document that is no time, state or hash, made evil. */
function poison<T>(value: T, keep: ReadonlySet<string>): T {
  if (Array.isArray(value)) return value.map(part => poison<unknown>(part, keep)) as T
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, typeof part === 'string' && !keep.has(key) ? `${EVIL}${part}` : poison<unknown>(part, keep)])) as T
}

const KEPT = new Set(['at', 'createdAt', 'verifiedAt', 'provenAt', 'usedAt', 'startedAt', 'connectedSince', 'since', 'until', 'publishedAt', 'expiresAt', 'state', 'narHash', 'type', 'cells', 'direction', 'phase', 'source', 'level', 'verdict', 'outcome'])

describe('what others have named', () => {
  it('is text on the page, whatever it looks like', async () => {
    const tasks = fakeTasks()
    const bad = (await tasks.list())[1] ?? goodImage
    const ref = { kind: 'nar-hash' as const, narHash: NarHash.parse(bad.narHash) }
    const { page, complaints } = await showFake({
      list: async () => poison(await tasks.list(), KEPT), show: async () => poison(await tasks.show(ref), KEPT), explain: async () => poison(await tasks.explain(ref), KEPT),
      status: async () => poison(await tasks.status(), KEPT), peers: async () => poison(await tasks.peers(), KEPT), bans: async () => poison(await tasks.bans(), KEPT),
      transfers: async () => poison(await tasks.transfers(), KEPT), queue: async () => poison(await tasks.queue(), KEPT),
      follow: listener => tasks.follow(event => { listener(poison(event, KEPT)) }),
    })
    await page.waitForSelector('.compared')
    await page.waitForSelector('#fleet tbody tr')
    await page.waitForSelector('.events li')
    expect(await page.textContent('#quarantine')).toContain(EVIL)
    expect(await page.textContent('#fleet')).toContain(EVIL)
    await page.goto(`${page.url()}#/image/${encodeURIComponent(bad.narHash)}`)
    await page.waitForSelector('#journal')
    expect(await page.textContent('main')).toContain(EVIL)
    await page.goto(`${page.url().split('#')[0] ?? ''}#/image/${encodeURIComponent(EVIL)}`)
    await page.waitForSelector('#fleet')
    expect(await page.locator('img:not(header img), body script').count()).toBe(0)
    expect(complaints).toEqual([])
    expect(await page.evaluate<boolean>('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
  })

  it('says what is wrong where the daemon answers with an error, and goes on when it is over', async () => {
    let isBroken = false
    const { page } = await showFake({ transfers: () => {
      if (isBroken) throw new NarvikError('corrupt-catalog', 'Cannot read the catalog: found no database, needed one')
      return []
    } })
    await page.waitForSelector('.connection.live')
    isBroken = true
    await page.locator('.notice.bad', { hasText: 'The daemon answers with an error: Cannot read the catalog' }).waitFor()
    isBroken = false
    await page.waitForSelector('.connection.live')
    expect(await page.locator('.notice.bad').count()).toBe(0)
  })

  it.each(['show', 'list'] as const)('shows an image in the state that it was last told of, however late the answer of %s', async slow => {
    let image: ImageJson = { ...goodImage, state: 'quarantined', verifiedAt: null }
    const lateAnswers = new LateAnswers()
    const tell = Promise.withResolvers<(event: HostEvent) => void>()
    const { page } = await showFake({
      list: () => slow === 'list' ? lateAnswers.give([image]) : [image],
      show: () => {
        const details: ImageDetailsJson = { ...image, otherStorePaths: [], publishedNames: [], closure: null, journal: [] }
        return slow === 'show' ? lateAnswers.give(details) : details
      },
      transfers: () => [], queue: () => [],
      follow: listener => { tell.resolve(listener); return () => undefined },
    })
    await lateAnswers.answer()
    await page.waitForSelector('#quarantine .held .next')
    const listener = await tell.promise
    const change = { type: 'image', at: image.createdAt, narHash: image.narHash, name: image.name, from: 'receiving', to: 'quarantined', event: 'proof', reason: 'all bytes are here', code: null } as const
    listener(change)
    await lateAnswers.asked()

    image = goodImage
    listener({ ...change, from: 'quarantined', to: 'verified', event: 'pass' })
    await page.locator('#images tr .state.verified').waitFor()
    await page.click('#images a.name')
    await page.waitForSelector('#facts')
    expect(await page.textContent('h1')).toMatch(/web-1.*verified/s)
    // The answer of before comes late; when the page asks again it has seen it.
    await lateAnswers.answer()
    await lateAnswers.asked()
    expect(await page.textContent('h1')).toMatch(/web-1.*verified/s)
    await page.click('.back a')
    expect(await page.locator('#images tr .state').textContent()).toBe('verified')
  })

  it('finds what is typed, with a name for everything that can be operated', async () => {
    const many = Array.from({ length: 250 }, (_, index): ImageJson => ({ ...goodImage, name: `web-${index}`, narHash: NarHash.fromBytes(Buffer.alloc(32, index)).toSri() }))
    const { page, complaints } = await showFake({ list: () => many, transfers: () => [], queue: () => [] })
    await page.waitForSelector('#images tbody tr')
    expect(await page.locator('#images tbody tr').count()).toBe(100)
    await page.getByRole('button', { name: 'Show more' }).click()
    await page.locator('#images tbody tr').nth(199).waitFor()
    await page.getByLabel('Find').fill('web-24')
    await page.locator('#images', { hasNotText: 'web-100' }).waitFor()
    expect(await page.locator('#images tbody tr').count()).toBe(11)
    await page.getByLabel('State').selectOption('rejected')
    await page.getByText('No image fits.').waitFor()
    for (const role of ['banner', 'main', 'contentinfo', 'search'] as const) expect(await page.getByRole(role).count(), role).toBe(1)
    expect(await page.getByRole('region').count()).toBeGreaterThanOrEqual(5)
    expect(complaints).toEqual([])
  })
})
