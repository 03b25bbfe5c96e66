import { describe, expect, onTestFinished, test } from 'vitest'
import type { HostEvent } from '../../../src/control/api.ts'
import { NarvikError } from '../../../src/errors.ts'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { silentLogger } from '../../../src/log.ts'
import type { PeerChange } from '../../../src/p2p/peer-info.ts'
import { Catalog } from '../../../src/store/catalog.ts'
import { Events, tellOf, telling } from '../../../src/tasks/events.ts'
import { Jobs } from '../../../src/tasks/jobs.ts'

const HASH = NarHash.fromBytes(Uint8Array.from({ length: 32 }, (_, index) => index))

function follow(): { events: Events, catalog: Catalog, jobs: Jobs, told: HostEvent[], change: (peer: PeerChange) => void, stop: () => void } {
  const events = new Events({ now: () => new Date(0) })
  const catalog = Catalog.open(':memory:')
  onTestFinished(() => { catalog.close() })
  const jobs = new Jobs()
  let change: (peer: PeerChange) => void = () => undefined
  const onPeerChange = (listener: typeof change) => {
    change = listener
    return () => { change = () => undefined }
  }
  const told: HostEvent[] = []
  events.follow(event => { told.push(event) })
  const stop = tellOf({ events, catalog, jobs, node: { onPeerChange } as never })
  return { events, catalog, jobs, told, change: peer => { change(peer) }, stop }
}

describe('what happens is told', () => {
  test('every change of an image, once it is on disk, with the code of its reason', () => {
    const { catalog, told } = follow()
    catalog.create({ narHash: HASH, source: 'fetch', place: 'content', name: 'web' })
    catalog.transition(HASH, 'start', { reason: 'receiving from a' })
    catalog.transition(HASH, 'interrupt', { reason: 'no room', evidence: { error: 'disk-full' } })
    catalog.remove(HASH, 'on request')
    expect(told.map(event => event.type === 'image' ? [event.name, event.event, event.to, event.code] : event.type)).toEqual([
      ['web', 'create', 'wanted', 'asked-for'], ['web', 'start', 'receiving', 'under-way'], ['web', 'interrupt', 'wanted', 'disk-full'], [null, 'remove', null, null],
    ])
  })

  test('nothing of a change that was not written', () => {
    const { catalog, told } = follow()
    catalog.create({ narHash: HASH, source: 'fetch', place: 'content' })
    expect(() => catalog.transition(HASH, 'pass', { reason: 'never' })).toThrow(/Cannot pass/)
    catalog.transition(HASH, 'start', { reason: 'now' })
    expect(told.map(event => event.type === 'image' ? event.event : event.type)).toEqual(['create', 'start'])
  })

  test('the steps that were taken in one transaction, in their order', () => {
    const { catalog, told } = follow()
    catalog.takeUp({ narHash: HASH, source: 'import', place: 'content' }, 'found on disk')
    expect(told.map(event => event.type === 'image' ? event.event : event.type)).toEqual(['create', 'start', 'complete'])
  })

  test('work that starts, ends and fails, with the code of its error', async () => {
    const { jobs, told } = follow()
    await jobs.run('import', HASH, () => Promise.resolve(1)).result
    await expect(jobs.run('fetch', HASH, () => Promise.reject(new NarvikError('no-provider', 'Cannot find it'))).result).rejects.toThrow()
    await expect(jobs.run('verify', HASH, () => Promise.reject(new TypeError('a mistake'))).result).rejects.toThrow()
    expect(told.map(event => event.type === 'work' ? [event.kind, event.event, event.code] : event.type)).toEqual([
      ['import', 'started', null], ['import', 'done', null],
      ['fetch', 'started', null], ['fetch', 'failed', 'no-provider'],
      ['verify', 'started', null], ['verify', 'failed', 'internal'],
    ])
  })

  test('peers, warnings and errors, and nothing once it is stopped', () => {
    const { events, told, change, stop } = follow()
    change({ peerId: 'a', change: 'banned', reason: 'it lied' })
    const logger = telling(silentLogger, events).child({ of: 'a' })
    logger.info('nothing to tell')
    logger.warn('look', { reason: new Error('b'), count: 2 })
    stop()
    change({ peerId: 'a', change: 'connected', reason: null })
    expect(told).toEqual([
      { at: '1970-01-01T00:00:00.000Z', type: 'peer', peerId: 'a', event: 'banned', reason: 'it lied' },
      { at: '1970-01-01T00:00:00.000Z', type: 'log', level: 'warn', message: 'look', fields: { reason: 'b', count: '2' } },
    ])
  })
})
