import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { nameKey, publisherId, readNameRecord } from '../../../src/image/name-record.ts'
import { CLOCK_SKEW_MS, MAX_NAME_VALIDITY_MS, RECORD_LIFETIME_MS } from '../../../src/limits.ts'
import { silentLogger } from '../../../src/log.ts'
import { DhtNames, NameBook, verifyNameRecord } from '../../../src/p2p/names.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { someHash } from '../../helpers/images.ts'
import { makePublisher } from '../../helpers/names.ts'

const NOW = 1_800_000_000_000
const IMAGE = someHash('image')
const publisher = makePublisher()
const id = publisherId(publisher.publicKey)
const record = (fields: Parameters<typeof publisher.sign>[2] = {}): Uint8Array =>
  publisher.sign('web', IMAGE, { seq: NOW, publishedAt: NOW, expires: NOW + 1000, ...fields })
const verify = (value: Uint8Array, key = nameKey(id, 'web')): Promise<unknown> => verifyNameRecord(key, value, NOW)

describe('the record of a name', () => {
  it('is what its publisher has signed', async () => {
    expect(await verify(record())).toMatchObject({ publisher: publisher.publicKey, name: 'web', seq: NOW, publishedAt: NOW, expires: NOW + 1000 })
  })

  it('is refused with any bit of it changed', async () => {
    const value = record()
    await fc.assert(fc.asyncProperty(fc.nat({ max: value.length - 1 }), fc.integer({ min: 0, max: 7 }), async (at, bit) => {
      const forged = Uint8Array.from(value)
      forged[at] = (forged[at] ?? 0) ^ (1 << bit)
      await expect(verify(forged)).rejects.toMatchObject({ code: 'refused' })
    }), { numRuns: 200 })
  })

  it('is refused whatever other bytes come in its place', async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async bytes => {
      await expect(verify(bytes)).rejects.toMatchObject({ code: 'refused' })
    }), { numRuns: 100 })
  })

  it('belongs under its own key alone', async () => {
    for (const key of [nameKey(id, 'other'), nameKey(publisherId(makePublisher().publicKey), 'web'), nameKey(id.toUpperCase(), 'web'), nameKey(id, 'web/')]) {
      await expectFailure(verify(record(), key), 'refused', /belongs under its key/)
    }
  })

  it('is not taken from another who says that it is this publisher\'s', async () => {
    const forged = makePublisher().sign('web', IMAGE, { publisher: publisher.publicKey, seq: NOW, publishedAt: NOW, expires: NOW + 1000 })
    await expectFailure(verify(forged), 'refused', /signature that does not verify/)
  })

  it.each([
    ['that has expired', { expires: NOW }, /expired/],
    ['from the future', { publishedAt: NOW + CLOCK_SKEW_MS + 1, expires: NOW + CLOCK_SKEW_MS + 2 }, /in the future/],
    ['with a number from the future', { seq: NOW + CLOCK_SKEW_MS + 1 }, /sequence number .* in the future/],
    ['that is valid for too long', { expires: NOW + MAX_NAME_VALIDITY_MS + 1 }, /at most/],
  ])('%s is refused', async (_what, fields, message) => {
    await expectFailure(verify(record(fields)), 'refused', message)
  })

  it('may not be too large, or have a name that is none', () => {
    expect(() => readNameRecord(new Uint8Array(5000))).toThrow(/found 5000 bytes/)
    for (const name of ['', '.hidden', 'a/b', 'a'.repeat(300)]) expect(() => readNameRecord(publisher.sign(name, IMAGE))).toThrow(/another form/)
  })
})

describe('the book of names', () => {
  const accept = (book: NameBook, value: Uint8Array): Promise<unknown> => book.accept(nameKey(id, 'web'), value)

  it('takes newer records, the same again, and neither older ones nor another with the same number', async () => {
    const book = new NameBook({ now: () => NOW })
    const [old, now, twin] = [record({ seq: 5 }), record({ seq: 6 }), publisher.sign('web', someHash('other'), { seq: 6, publishedAt: NOW, expires: NOW + 1000 })]
    await accept(book, old)
    await accept(book, now)
    await accept(book, now)
    await expectFailure(accept(book, old), 'refused', /sequence number 5, needed one above 6/)
    await expectFailure(accept(book, twin), 'refused', /sequence number 6, needed one above 6/)
    expect(book.newest(id, 'web')?.record.seq).toBe(6)
    expect(book.newest(id, 'other')).toBeUndefined()
  })

  it('does not show what has expired', async () => {
    let now = NOW
    const book = new NameBook({ now: () => now })
    await accept(book, record())
    now = NOW + 1000
    expect(book.newest(id, 'web')).toBeUndefined()
  })
})

describe('the names that this host tells of', () => {
  // Watches that one that has expired by a wrong clock is passed over, and told of again when the clock is right (names.ts).
  it('are not forgotten while the clock is ahead', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => { vi.useRealTimers() })
    let now = NOW
    let told = 0
    // eslint-disable-next-line require-yield -- nobody is told
    const dht = { put: async function* () { await Promise.resolve(); told += 1 }, get: async function* () { await Promise.resolve() } }
    const names = new DhtNames({ dht, table: { addEventListener: () => undefined }, book: new NameBook({ now: () => now }), logger: silentLogger }, { now: () => now })
    names.start()
    const value = record()
    await names.keep({ record: await names.accept(value), value })
    const toldAfter = async (at: number): Promise<number> => {
      now = at
      await vi.advanceTimersByTimeAsync(RECORD_LIFETIME_MS / 2)
      return told
    }
    expect([told, await toldAfter(NOW + 1000), await toldAfter(NOW)]).toEqual([1, 1, 2])
    await names.stop()
  })
})
