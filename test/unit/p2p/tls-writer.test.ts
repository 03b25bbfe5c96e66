import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Buffers } from '../../../src/p2p/buffers.ts'
import { TlsWriter } from '../../../src/p2p/tls/writer.ts'
import { rangeOf } from '../../helpers/bytes.ts'

const HALF = 64

function newWriter(socket: SlowSocket, onRoom: () => void = () => undefined): TlsWriter {
  return new TlsWriter(socket, onRoom, new Buffers({ bytes: HALF, kept: 2 }))
}

type Written = (error?: Error | null) => void

/** A socket that looks at what it was given when it has written it, as late as it may. */
class SlowSocket {
  readonly written: Buffer[] = []
  readonly given: Uint8Array[] = []
  readonly #pending: { readonly bytes: Uint8Array, readonly onWritten: Written }[] = []

  write(bytes: Uint8Array | string, second?: unknown): boolean {
    if (typeof bytes === 'string') throw new Error('found text, needed bytes')
    this.given.push(bytes)
    this.#pending.push({ bytes, onWritten: second as Written })
    return false
  }

  /** Bytes that wait to be written. */
  get pending(): number {
    return this.#pending.reduce((sum, { bytes }) => sum + bytes.byteLength, 0)
  }

  /** Writes the oldest; false where there is none. */
  writeOne(error?: Error): boolean {
    const first = this.#pending.shift()
    if (first === undefined) return false
    if (error === undefined) this.written.push(Buffer.from(first.bytes))
    first.onWritten(error)
    return true
  }
}

function nextTurn(): Promise<void> {
  return new Promise(resolve => { setImmediate(resolve) })
}

describe('what goes into TLS', () => {
  it('comes out as it went in, however it is cut, and whatever becomes of its memory afterwards', async () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.array(fc.integer({ min: 0, max: 2 * HALF }), { minLength: 1, maxLength: 4 }) },
      { weight: 2, arbitrary: fc.constant('write' as const) }, { weight: 1, arbitrary: fc.constant('turn' as const) }, { weight: 1, arbitrary: fc.constant('flush' as const) },
    )
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async steps => {
      const socket = new SlowSocket()
      let isTold = true
      const writer = newWriter(socket, () => { isTold = true })
      const sent: Buffer[] = []
      for (const what of steps) {
        if (what === 'write') socket.writeOne()
        else if (what === 'turn') await nextTurn()
        else if (what === 'flush') writer.flush()
        else if (isTold) {
          const parts = what.map((length, index) => rangeOf(sent.length + index, length))
          const all = Buffer.concat(parts)
          const taken = writer.add(parts)
          for (const part of parts) part.fill(0)
          sent.push(all.subarray(0, taken))
          isTold = taken === all.byteLength
        }
      }
      do await nextTurn(); while (socket.writeOne())
      expect(Buffer.compare(Buffer.concat(socket.written), Buffer.concat(sent))).toBe(0)
      expect(isTold).toBe(true)
    }), { numRuns: 300 })
  })

  it('goes together where it comes in one turn, and is bounded while the socket is slow', async () => {
    const socket = new SlowSocket()
    let told = 0
    const writer = newWriter(socket, () => { told += 1 })
    expect(writer.add([rangeOf(0, 12), rangeOf(0, 20)])).toBe(32)
    expect(writer.add([rangeOf(0, 12)])).toBe(12)
    expect(socket.pending).toBe(0)
    await nextTurn()
    expect(socket.pending).toBe(44)
    expect(writer.add([rangeOf(0, HALF - 1), rangeOf(0, 5)])).toBe(HALF)
    expect(writer.add([rangeOf(0, 1)])).toBe(0)
    await nextTurn()
    expect(socket.pending).toBe(44)
    expect(told).toBe(0)
    socket.writeOne()
    expect([socket.pending, told]).toEqual([HALF, 1])
  })

  it('uses no memory again that a socket with an error may still have', async () => {
    const socket = new SlowSocket()
    const writer = newWriter(socket)
    const before = rangeOf(0, HALF)
    writer.add([before])
    await nextTurn()
    const [first] = socket.given
    socket.writeOne(new Error('it is gone'))
    writer.add([rangeOf(9, HALF)])
    await nextTurn()
    expect(Buffer.compare(first ?? Buffer.alloc(0), before)).toBe(0)
  })
})
