import { readFileSync } from 'node:fs'
import { describe, expect, onTestFinished, test } from 'vitest'
import { STAGE_REASONS } from '../../../src/image/reasons.ts'
import { EVENTS } from '../../../src/image/states.ts'
import type { PeerInfo } from '../../../src/p2p/node.ts'
import { silentLogger } from '../../../src/log.ts'
import { Metrics } from '../../../src/metrics/metrics.ts'
import { expose } from '../../../src/metrics/registry.ts'
import { MetricsServer } from '../../../src/metrics/server.ts'
import { Books } from '../../../src/p2p/books.ts'
import { Events } from '../../../src/tasks/events.ts'
import { Jobs } from '../../../src/tasks/jobs.ts'
import { Catalog } from '../../../src/store/catalog.ts'

function peer(number: number): PeerInfo {
  return { peerId: `peer-${number}`, addresses: [], direction: number % 2 === 0 ? 'inbound' : 'outbound', latencyMs: null, agent: null, connectedSince: null, banned: number % 10 === 0, streams: 0, received: 0, sent: 0 }
}

function observe(peers: number): { metrics: Metrics, events: Events, books: Books } {
  const events = new Events()
  const books = new Books()
  const catalog = Catalog.open(':memory:')
  const node = { peers: () => Array.from({ length: peers }, (_, number) => peer(number)), routingPeers: peers, traffic: books.totals() }
  const metrics = new Metrics({ catalog, content: { freeBytes: () => Promise.resolve(1) } as never, jobs: new Jobs(), node, events }, { version: '0' })
  onTestFinished(() => {
    metrics[Symbol.dispose]()
    catalog.close()
  })
  return { metrics, events, books }
}

describe('the metrics', () => {
  test('are as many with 500 peers as with one', async () => {
    const counts = await Promise.all([1, 500].map(async peers => {
      const { metrics, events, books } = observe(peers)
      for (let number = 0; number < peers; number++) {
        const traffic = books.open(`peer-${number}`, '/narvik/nar/1.0.0')
        traffic.received += 7
        for (const event of ['connected', 'disconnected', 'banned'] as const) events.tell({ type: 'peer', peerId: `peer-${number}`, event, reason: `of ${number}` })
        events.tell({ type: 'image', narHash: `hash ${number}`, name: `name-${number}`, event: 'fail', from: 'quarantined', to: 'rejected', reason: `reason ${number}`, code: 'wrong-nar-hash' })
        events.tell({ type: 'work', narHash: `hash ${number}`, name: null, kind: 'fetch', event: 'failed', code: 'no-provider', reason: `reason ${number}` })
      }
      const text = await metrics.text()
      expect(text).not.toMatch(/peer-\d|hash \d|name-\d|of \d|reason \d/)
      expect(text).toContain(`narvik_received_bytes_total{kind="nar"} ${7 * peers}\n`)
      expect(text).toContain(`narvik_verify_outcomes_total{verdict="fail",reason="wrong-nar-hash"} ${peers}\n`)
      expect(text).toContain(`narvik_work_total{kind="fetch",result="no-provider"} ${peers}\n`)
      return text.split('\n').length
    }))
    expect(counts[1]).toBe(counts[0])
    expect(counts[0]).toBeLessThan(150)
  })

  test('have names and help of the right form', () => {
    for (const { name, type, help } of observe(0).metrics.list()) {
      expect(name).toMatch(/^narvik_[a-z0-9_]+$/)
      expect(name.endsWith('_total'), name).toBe(type === 'counter')
      expect(help).toMatch(/^[A-Z].*\.$/)
    }
  })

  test('escape what would end a label', async () => {
    expect(await expose([{ name: 'a', help: 'b', type: 'gauge', collect: () => [{ labels: { c: 'x"y\\z\n' }, value: 1 }] }])).toBe('# HELP a b\n# TYPE a gauge\na{c="x\\"y\\\\z\\n"} 1\n')
  })

  test('are all in the dashboard or the rules, and nothing else is', () => {
    const known = new Set(observe(0).metrics.list().map(({ name }) => name))
    const used = new Set(['config/narvik.dashboard.json', 'config/narvik.rules.yml'].flatMap(file => readFileSync(file, 'utf8').match(/\bnarvik_[a-z0-9_]+/g) ?? []))
    expect([...used].toSorted()).toEqual([...known].toSorted())
  })

  test('what the alerts look for an increase of is there as 0 before it happens', async () => {
    const { metrics, events } = observe(0)
    const lines = (): Promise<string[]> => metrics.text().then(text => text.split('\n').filter(line => /^narvik_(transitions|verify_outcomes|peer_changes|log_lines)_total\{/.test(line)))
    const before = await lines()
    expect(before.every(line => line.endsWith(' 0')), before.join('\n')).toBe(true)
    for (const event of ['create', ...EVENTS, 'remove'] as const) events.tell({ type: 'image', narHash: 'hash', name: null, event, from: null, to: null, reason: '', code: event === 'fail' ? 'wrong-nar-hash' : null })
    for (const code of [...Object.values(STAGE_REASONS), 'unproven']) events.tell({ type: 'image', narHash: 'hash', name: null, event: 'fail', from: 'quarantined', to: 'rejected', reason: '', code })
    for (const event of ['connected', 'disconnected', 'banned'] as const) events.tell({ type: 'peer', peerId: 'peer', event, reason: null })
    for (const level of ['warn', 'error'] as const) events.tell({ type: 'log', level, message: '', fields: {} })
    const after = await lines()
    expect(after.map(line => line.split(' ')[0])).toEqual(before.map(line => line.split(' ')[0]))
    expect(after.every(line => !line.endsWith(' 0')), after.join('\n')).toBe(true)
  })

  test('each alert has its chapter in docs/OPERATIONS.md, and every metric is told of', () => {
    const text = readFileSync('docs/OPERATIONS.md', 'utf8')
    const alerts = [...readFileSync('config/narvik.rules.yml', 'utf8').matchAll(/- alert: (\w+)/g)].map(([, alert = '']) => alert)
    expect(alerts.length).toBeGreaterThan(0)
    for (const alert of alerts) expect(text).toMatch(new RegExp(`^#+ ${alert}$`, 'm'))
    for (const { name } of observe(0).metrics.list()) expect(text).toContain(`\`${name}\``)
  })
})

test('the port answers /metrics and nothing else', async () => {
  const server = new MetricsServer({ text: () => Promise.resolve('narvik_info 1\n'), logger: silentLogger, isOurs: () => true }, { host: '127.0.0.1', port: 0 })
  const port = await server.start()
  onTestFinished(() => server.stop())
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`)
  expect(answer.headers.get('content-type')).toContain('version=0.0.4')
  expect(await answer.text()).toBe('narvik_info 1\n')
  for (const [path, method] of [['/v1/status', 'GET'], ['/metrics', 'POST'], ['/', 'GET']] as const) expect((await fetch(`http://127.0.0.1:${port}${path}`, { method })).status).toBe(404)
})
