import { multiaddr } from '@multiformats/multiaddr'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { peerIdFromString } from '@libp2p/peer-id'
import { DIAL_TIMEOUT_MS, FORGET_PEER_MS, MAX_MESH_DIALS, MAX_MESH_PEERS, MAX_MESH_TARGETS } from '../../../src/limits.ts'
import { silentLogger } from '../../../src/log.ts'
import { newIdentity, peerIdOf } from '../../../src/p2p/identity.ts'
import { Mesh, type MeshComponents } from '../../../src/p2p/mesh.ts'

beforeEach(() => { vi.useFakeTimers() })
afterEach(() => { vi.useRealTimers() })

const ids = await Promise.all(Array.from({ length: MAX_MESH_PEERS + 2 }, async () => peerIdFromString(peerIdOf(await newIdentity()))))
const [self, friend] = ids
if (self === undefined || friend === undefined) throw new Error('no ids')

/** Of libp2p, what a mesh uses; nobody answers unless `answers` says so. */
function fakeLibp2p({ answers = false, connections = [] as { remotePeer: typeof self }[] } = {}) {
  const events = new EventTarget()
  const dials: number[] = []
  const libp2p = {
    peerId: self,
    connections,
    answers,
    dials,
    dialled: [] as unknown[],
    forgotten: [] as unknown[],
    getConnections: () => libp2p.connections,
    addEventListener: events.addEventListener.bind(events),
    emit: (type: string, detail: unknown) => { events.dispatchEvent(Object.assign(new Event(type), { detail })) },
    peerStore: { delete: (id: unknown) => { libp2p.forgotten.push(id); return Promise.resolve() } },
    dial: (target: unknown): Promise<unknown> => {
      dials.push(performance.now())
      libp2p.dialled.push(target)
      if (!libp2p.answers) return Promise.reject(new Error('nobody is there'))
      libp2p.connections.push({ remotePeer: friend ?? self })
      return Promise.resolve({ remotePeer: friend })
    },
  }
  return libp2p
}

function meshOf(libp2p: ReturnType<typeof fakeLibp2p>, { bootstrap = [], isBanned = () => false, random = 1 }: { bootstrap?: string[], isBanned?: () => boolean, random?: number } = {}): Mesh {
  const mesh = new Mesh({ libp2p: libp2p as unknown as MeshComponents['libp2p'], logger: silentLogger, isBanned }, {
    bootstrap: bootstrap.map(address => multiaddr(address)), redialMinMs: 1000, redialMaxMs: 8000, random: () => random,
  })
  mesh.start()
  return mesh
}

function gaps(times: number[]): number[] {
  return times.slice(1).map((time, index) => Math.round(time - (times[index] ?? 0)))
}

describe('a bootstrap peer', () => {
  it('is dialled at once, and again and again with a wait that doubles up to the cap', async () => {
    const libp2p = fakeLibp2p()
    const mesh = meshOf(libp2p, { bootstrap: ['/ip4/127.0.0.1/tcp/1'] })
    await vi.advanceTimersByTimeAsync(40_000)
    expect(gaps(libp2p.dials)).toEqual([1000, 2000, 4000, 8000, 8000, 8000, 8000])
    mesh.stop()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(libp2p.dials).toHaveLength(8)
  })

  it('is never forgotten', async () => {
    const libp2p = fakeLibp2p()
    meshOf(libp2p, { bootstrap: ['/ip4/127.0.0.1/tcp/1'] })
    await vi.advanceTimersByTimeAsync(FORGET_PEER_MS + 60_000)
    const before = libp2p.dials.length
    await vi.advanceTimersByTimeAsync(20_000)
    expect(libp2p.dials.length).toBeGreaterThan(before)
  })

  it('is left alone while it is connected, and dialled again soon after it went', async () => {
    const libp2p = fakeLibp2p({ answers: true })
    meshOf(libp2p, { bootstrap: ['/ip4/127.0.0.1/tcp/1'] })
    await vi.advanceTimersByTimeAsync(1)
    libp2p.emit('peer:connect', friend)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(libp2p.dials).toHaveLength(1)
    libp2p.connections.length = 0
    libp2p.emit('peer:disconnect', friend)
    await vi.advanceTimersByTimeAsync(1000)
    expect(libp2p.dials).toHaveLength(2)
  })

  it('that lets this host in and throws it out at once is dialled less and less', async () => {
    const libp2p = fakeLibp2p({ answers: true })
    meshOf(libp2p, { bootstrap: [`/ip4/127.0.0.1/tcp/1/p2p/${friend.toString()}`] })
    for (let second = 0; second < 30; second++) {
      await vi.advanceTimersByTimeAsync(1000)
      if (libp2p.connections.length === 0) continue
      libp2p.emit('peer:connect', friend)
      libp2p.connections.length = 0
      libp2p.emit('peer:disconnect', friend)
    }
    expect(libp2p.dials.length).toBeLessThan(8)
  })
})

describe('a peer that was heard of', () => {
  it('is dialled, in time forgotten, and dialled when it is heard of again', async () => {
    const libp2p = fakeLibp2p()
    meshOf(libp2p)
    libp2p.emit('peer:discovery', { id: friend })
    libp2p.emit('peer:discovery', { id: friend })
    await vi.advanceTimersByTimeAsync(500)
    expect(libp2p.dials).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(FORGET_PEER_MS + 60_000)
    expect(libp2p.forgotten).toEqual([friend])
    const before = libp2p.dials.length
    await vi.advanceTimersByTimeAsync(DIAL_TIMEOUT_MS * 10)
    expect(libp2p.dials).toHaveLength(before)
    libp2p.emit('peer:discovery', { id: friend })
    await vi.advanceTimersByTimeAsync(1)
    expect(libp2p.dials).toHaveLength(before + 1)
  })

  it('is not dialled where it is this host, is banned, or there are enough', async () => {
    const alone = fakeLibp2p()
    meshOf(alone)
    alone.emit('peer:discovery', { id: self })
    const banning = fakeLibp2p()
    meshOf(banning, { isBanned: () => true })
    banning.emit('peer:discovery', { id: friend })
    const full = fakeLibp2p({ connections: ids.slice(2).map(remotePeer => ({ remotePeer })) })
    meshOf(full)
    full.emit('peer:discovery', { id: friend })
    await vi.advanceTimersByTimeAsync(60_000)
    expect([alone.dials, banning.dials, full.dials]).toEqual([[], [], []])
    full.connections.length = 1
    await vi.advanceTimersByTimeAsync(10_000)
    expect(full.dials.length).toBeGreaterThan(0)
  })

  // Watches the number of peers that are remembered, of dials at once, and who is given up for another (mesh.ts).
  it('is remembered and dialled among thousands that are made up', async () => {
    const libp2p = fakeLibp2p()
    let dialling = 0
    let most = 0
    libp2p.dial = async () => {
      dialling += 1
      most = Math.max(most, dialling)
      await new Promise(resolve => { setTimeout(resolve, 1000) })
      dialling -= 1
      throw new Error('nobody is there')
    }
    const mesh = meshOf(libp2p, { random: 0.9 })
    libp2p.connections.push({ remotePeer: friend })
    libp2p.emit('peer:connect', friend)
    libp2p.connections.length = 0
    libp2p.emit('peer:disconnect', friend)
    const invented = Array.from({ length: 2 * MAX_MESH_TARGETS }, (_, index) => ({ toString: () => `invented-${index}`, toMultihash: () => index }))
    for (const id of invented) libp2p.emit('peer:discovery', { id })
    expect(libp2p.forgotten.length).toBe(MAX_MESH_TARGETS + 1)
    expect(libp2p.forgotten).not.toContain(friend)
    await vi.advanceTimersByTimeAsync(30_000)
    expect(most).toBe(MAX_MESH_DIALS)
    mesh.stop()
  })

  // Watches that whoever was there once is dialled before those that never were (mesh.ts).
  it('and was met before is dialled before those that were not', async () => {
    const libp2p = fakeLibp2p()
    libp2p.dial = target => {
      libp2p.dialled.push(target)
      return new Promise(() => undefined)
    }
    const mesh = meshOf(libp2p)
    for (const id of ids.slice(2)) libp2p.emit('peer:discovery', { id })
    libp2p.connections.push({ remotePeer: friend })
    libp2p.emit('peer:connect', friend)
    libp2p.connections.length = 0
    mesh.wake()
    await vi.advanceTimersByTimeAsync(1)
    expect(libp2p.dialled).toHaveLength(MAX_MESH_DIALS)
    expect(libp2p.dialled[0]).toBe(friend)
    mesh.stop()
  })
})
