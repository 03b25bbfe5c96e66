import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatBytes } from '../../../src/byte-size.ts'
import { etaSeconds, progressLine } from '../../../src/cli/bar.ts'
import { formatSeconds, harmless } from '../../../src/cli/format.ts'
import { fields, table } from '../../../src/cli/table.ts'
import { collectionView, usageView } from '../../../src/cli/space-views.ts'
import { eventView, imageDetailsView, imageListView, peersView, statusView, transfersView, verifyView, publishedNameView } from '../../../src/cli/views.ts'
import { PHASES, type Progress } from '../../../src/control/api.ts'
import { goodImage, PEER, someProgress } from '../../helpers/fake-tasks.ts'

const plain = (_: unknown, text: string): string => text
const CONTROL = /[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/u

describe('amounts', () => {
  test.each([[0, '0 B'], [1023, '1023 B'], [1024, '1.0 KiB'], [1_288_490_189, '1.2 GiB'], [16 * 1024 ** 4, '16.0 TiB'], [5000 * 1024 ** 4, '5000.0 TiB']])('%d bytes', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })

  test.each([[0, '0 s'], [0.2, '1 s'], [59.5, '1 min 0 s'], [125, '2 min 5 s'], [3599, '59 min 59 s'], [12_000, '3 h 20 min'], [352_800, '4 d 2 h']])('%d seconds', (seconds, text) => {
    expect(formatSeconds(seconds)).toBe(text)
  })
})

describe('the bar', () => {
  test('says when it will be done, where that is known', () => {
    expect(etaSeconds({ bytes: 50, totalBytes: 100, bytesPerSecond: 10 })).toBe(5)
    expect(etaSeconds({ bytes: 50, totalBytes: null, bytesPerSecond: 10 })).toBeUndefined()
    expect(etaSeconds({ bytes: 50, totalBytes: 100, bytesPerSecond: 0 })).toBeUndefined()
    expect(etaSeconds({ bytes: 150, totalBytes: 100, bytesPerSecond: 10 })).toBe(0)
  })

  test('shows all there is on a wide terminal, and the phase on the narrowest', () => {
    expect(progressLine(someProgress, 120)).toBe('receiving   [###################-------------------]   49 %  614.4 MiB / 1.2 GiB  100.0 MiB/s  ETA 7 s  1 peer')
    expect(progressLine(someProgress, 12)).toBe('receiving ')
    expect(progressLine({ ...someProgress, phase: 'finding', bytes: 0, totalBytes: null, bytesPerSecond: 0, peers: [] }, 80)).toBe('finding     0 peers')
    expect(progressLine({ ...someProgress, phase: 'hashing', totalBytes: null, peers: [] }, 80)).toBe('hashing     614.4 MiB  100.0 MiB/s')
    expect(progressLine({ ...someProgress, phase: 'hashing', bytes: 0, totalBytes: 0, bytesPerSecond: 0 }, 80)).toContain('100 %')
  })

  test('never wraps', () => {
    const progress: fc.Arbitrary<Progress> = fc.record({
      narHash: fc.constant(null),
      phase: fc.constantFrom(...PHASES),
      bytes: fc.nat(),
      totalBytes: fc.option(fc.nat()),
      bytesPerSecond: fc.float({ min: 0, noNaN: true, noDefaultInfinity: true }),
      peers: fc.constant([{ peerId: PEER, bytes: 1 }]),
    })
    fc.assert(fc.property(progress, fc.integer({ min: 1, max: 200 }), (value, columns) => {
      expect(progressLine(value, columns).length).toBeLessThanOrEqual(columns)
    }))
  })
})

describe('tables', () => {
  test('columns are as wide as their widest cell, also with colours', () => {
    const paint = (_: unknown, text: string): string => `<${text}>`
    expect(table(['A', 'B', 'C'], [['longer', { text: 'x', style: 'red' }, '1'], ['-', 'yy', '']], paint)).toBe('<A>       <B>   <C>\nlonger  <x>   1\n-       yy')
  })

  test('a field without a value is left out', () => {
    expect(fields({ 'a': '1', 'long name': null, 'bc': '2' }, plain)).toBe('a   1\nbc  2')
  })
})

test('the list says which images are served to nobody', () => {
  const lines = imageListView([goodImage, { ...goodImage, private: true }], plain).split('\n')
  expect(lines.map(line => line.includes('import, private'))).toEqual([false, false, true])
})

describe('what other hosts say', () => {
  const EVIL = '\x1b[2J\x07\r\u202eevil\u0085\n'

  test('reaches no terminal as more than text', () => {
    const image = { ...goodImage, name: EVIL, reason: EVIL, note: EVIL, storePath: EVIL, deriver: EVIL, ca: EVIL, references: [EVIL], signatures: [EVIL], path: EVIL }
    const stage = { stage: EVIL, verdict: 'fail', detail: EVIL, expected: EVIL, found: EVIL, milliseconds: 1 } as const
    const evidence = { verdict: { verdict: 'fail', stages: [stage], reason: EVIL }, peers: [{ peerId: EVIL, bytes: 1, outcome: 'lied', detail: EVIL }], notes: [EVIL] } as const
    const texts = [
      imageListView([image], plain),
      imageDetailsView({ ...image, publishedNames: [], otherStorePaths: [EVIL], closure: { paths: 1, narSize: 1, missing: [EVIL] }, journal: [{ at: image.createdAt, from: null, to: 'wanted', event: EVIL, reason: EVIL, code: EVIL, evidence }] }, plain),
      verifyView({ results: [{ narHash: image.narHash, name: EVIL, verdict: 'fail', stages: [stage], reason: EVIL }] }, plain),
      peersView([{ peerId: EVIL, addresses: [EVIL], direction: 'inbound', latencyMs: null, agent: EVIL, connectedSince: null, banned: true, bytesReceived: 0, bytesSent: 0 }], plain),
      transfersView([{ ...someProgress, narHash: image.narHash, name: EVIL, direction: 'in', queuePosition: 2, startedAt: image.createdAt }], plain),
      statusView({ peerId: EVIL, addresses: [EVIL], version: EVIL, uptimeSeconds: 1, peers: 0, dhtPeers: 0, images: { wanted: 0, receiving: 0, quarantined: 0, verified: 0, rejected: 0 }, dataDir: EVIL, socket: EVIL, freeBytes: 0, paused: EVIL, scrub: { lastAt: null, nextAt: null, underWay: EVIL, damaged: 1 }, fleet: false, nix: { available: false, detail: EVIL } }, plain),
      usageView({ quotaBytes: 1, usedBytes: 2, claimedBytes: 0, catalogBytes: 0, freeBytes: 0, minFreeBytes: 1, paused: EVIL, images: [{ narHash: image.narHash, name: EVIL, state: 'verified', place: 'content', diskBytes: 1, apparentBytes: 1, pinned: true, usedAt: image.usedAt }] }, plain),
      collectionView({ dryRun: true, freedBytes: 1, collected: [{ narHash: image.narHash, name: EVIL, what: 'image', diskBytes: 1, usedAt: image.usedAt }], kept: [{ narHash: image.narHash, name: EVIL, reason: EVIL }] }, plain),
      eventView({ at: image.createdAt, type: 'image', narHash: image.narHash, name: EVIL, event: EVIL, from: null, to: null, reason: EVIL, code: EVIL }, plain),
      eventView({ at: image.createdAt, type: 'log', level: 'warn', message: EVIL, fields: { [EVIL]: EVIL } }, plain),
    ]
    for (const text of texts) {
      expect(text).toContain('evil')
      expect(text).not.toMatch(CONTROL)
    }
    expect(texts[0]?.split('\n')).toHaveLength(2)
  })

  test('is otherwise left as it is', () => {
    fc.assert(fc.property(fc.string({ unit: 'grapheme-ascii' }), text => { expect(harmless(text)).toBe(text) }))
    expect(harmless('größe 日本 🦊')).toBe('größe 日本 🦊')
  })
})

describe('until when a published name is valid', () => {
  const DAY = 24 * 3600 * 1000
  const shown = (valid: number, left: number, own: boolean): string => publishedNameView({
    name: 'web', publisher: 'fleet-1:key', narHash: 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=', seq: 1, trusted: true, own,
    publishedAt: new Date(Date.now() + left - valid).toISOString(), expiresAt: new Date(Date.now() + left).toISOString(),
  }, (_style, text) => text)

  test.each([
    [90 * DAY, 8 * DAY, true, /UTC$/],
    [90 * DAY, 6 * DAY, true, /\(publish it again\)$/],
    [90 * DAY, 6 * DAY, false, /\(expires soon\)$/],
    [DAY, DAY - 1000, true, /UTC$/],
    [DAY, DAY / 4, true, /\(publish it again\)$/],
    [DAY, -1000, true, /\(expired\)$/],
  ])('of %i ms %i are left, own %s: %s', (valid, left, own, end) => {
    expect(shown(valid, left, own).trimEnd()).toMatch(end)
  })
})
