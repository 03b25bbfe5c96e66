import { describe, expect, it } from 'vitest'
import { Books } from '../../../src/p2p/books.ts'
import { inFlight, InFlight } from '../../../src/p2p/in-flight.ts'

const never = new AbortController().signal

/** Whether a promise is settled by now, without waiting for it. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending')
  return await Promise.race([promise.catch(() => undefined), new Promise(resolve => setImmediate(resolve, pending))]) !== pending
}

describe('the bytes on the way', () => {
  it('to one peer are bounded: what is more waits until some have gone, in the order in which it came', async () => {
    const peer = new InFlight({ perPeer: 10, inAll: 100 }).newPeer()
    const [first, second] = [await peer.take(6, never), await peer.take(4, never)]
    const [third, fourth] = [peer.take(5, never), peer.take(5, never)]
    expect(await isSettled(third)).toBe(false)
    second[Symbol.dispose]()
    second[Symbol.dispose]()
    expect(await isSettled(third)).toBe(false)
    first[Symbol.dispose]()
    expect([await isSettled(third), await isSettled(fourth)]).toEqual([true, true])
  })

  it('to all are bounded for those who have some, and never keep one waiting who has none', async () => {
    const all = new InFlight({ perPeer: 10, inAll: 15 })
    const [greedy, other, newcomer] = [all.newPeer(), all.newPeer(), all.newPeer()]
    const held = await greedy.take(10, never)
    await other.take(5, never)
    const more = other.take(1, never)
    expect(await isSettled(more)).toBe(false)
    expect(await isSettled(newcomer.take(5, never))).toBe(true)
    expect(all.total).toBe(20)
    held[Symbol.dispose]()
    expect(await isSettled(more)).toBe(true)
  })

  it('are given up by who waits when the exchange ends, and leave no place taken', async () => {
    const all = new InFlight({ perPeer: 1, inAll: 1 })
    const peer = all.newPeer()
    const held = await peer.take(1, never)
    const exchange = new AbortController()
    const waiting = peer.take(1, exchange.signal)
    exchange.abort(new Error('gone'))
    await expect(waiting).rejects.toThrow('gone')
    await expect(peer.take(1, exchange.signal)).rejects.toThrow('gone')
    held[Symbol.dispose]()
    expect(all.total).toBe(0)
  })
})

it('is one flight for all exchanges with a peer, whatever their protocol', () => {
  const all = new InFlight()
  const books = new Books(() => ({ flight: all.newPeer() }))
  expect(books.open('one', 'nar').flight).toBe(books.open('one', 'chunks').flight)
  expect(books.open('one', 'nar').flight).not.toBe(books.open('other', 'nar').flight)
})

describe('a source', () => {
  it('reads no buffer before there is room, has one on the way at a time, and leaves none behind however it ends', async () => {
    const all = new InFlight({ perPeer: 8, inAll: 8 })
    const peer = all.newPeer()
    const state = { reads: 0, closed: false }
    const source = async function* (): AsyncGenerator<Uint8Array> {
      try {
        while (true) {
          state.reads += 1
          yield new Uint8Array(8)
          await Promise.resolve()
        }
      } finally {
        state.closed = true
      }
    }
    const held = await peer.take(8, never)
    const buffers = inFlight(peer, 8, never)(source())[Symbol.asyncIterator]()
    const first = buffers.next()
    expect([await isSettled(first), state.reads]).toEqual([false, 0])
    held[Symbol.dispose]()
    await first
    await buffers.next()
    expect([all.total, state.reads]).toEqual([8, 2])
    await buffers.return?.()
    expect([all.total, state.closed]).toEqual([0, true])
  })
})
