import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { CLOCK_SKEW_MS, MAX_RECORD_BYTES, RECORD_LIFETIME_MS } from '../../../src/limits.ts'
import { type ImageRecord, MAX_RECORD_LIFETIME_MS, recordKey, signRecord, verifyRecord } from '../../../src/p2p/record.ts'
import { RecordBook } from '../../../src/p2p/record-book.ts'
import { rangeOf } from '../../helpers/bytes.ts'
import { expectFailure } from '../../helpers/failure.ts'

const NOW = 1_800_000_000_000
const HASH = NarHash.fromBytes(rangeOf(0, 32))
const OTHER = NarHash.fromBytes(rangeOf(1, 32))
const owner = await generateKeyPair('Ed25519')
const stranger = await generateKeyPair('Ed25519')
const OWNER = idOf(owner)
const KEY = recordKey(OWNER, HASH)
const HELD: ImageRecord = { version: 1, status: 'held', narHash: HASH, narSize: 123, manifestDigest: 'ab'.repeat(32), seq: NOW, expires: NOW + RECORD_LIFETIME_MS }
const WITHDRAWN: ImageRecord = { version: 1, status: 'withdrawn', narHash: HASH, seq: NOW + 1, expires: NOW + MAX_RECORD_LIFETIME_MS }

function idOf(key: PrivateKey): string {
  return peerIdFromPrivateKey(key).toString()
}

async function signed(changes: object = {}, { key = KEY, by = owner }: { key?: Uint8Array, by?: PrivateKey } = {}): Promise<Uint8Array> {
  return signRecord(key, { ...HELD, ...changes }, by)
}

describe('verifyRecord', () => {
  it('gives back every record that was signed', async () => {
    const held = fc.record({ narSize: fc.nat(), manifestDigest: fc.option(fc.constant('0f'.repeat(32))), seq: fc.integer({ min: 0, max: NOW }) })
    await fc.assert(fc.asyncProperty(held, async changes => {
      const { peerId, record } = await verifyRecord(KEY, await signed(changes), NOW)
      expect(peerId).toBe(OWNER)
      expect(record).toEqual({ ...HELD, ...changes })
    }), { numRuns: 50 })
    expect((await verifyRecord(KEY, await signRecord(KEY, WITHDRAWN, owner), NOW)).record).toEqual(WITHDRAWN)
  })

  it('refuses every flipped bit', async () => {
    const value = await signed()
    await fc.assert(fc.asyncProperty(fc.nat(value.length * 8 - 1), async bit => {
      const bad = value.map((byte, index) => index === bit >> 3 ? byte ^ 1 << (bit & 7) : byte)
      await expectFailure(verifyRecord(KEY, bad, NOW), 'refused', /signature/)
    }), { numRuns: 100 })
  })

  it('refuses a forgery: signed by somebody else, or for another purpose', async () => {
    await expectFailure(verifyRecord(KEY, await signed({}, { by: stranger }), NOW), 'refused', /does not verify/)
    const payload = (await signed()).slice(64)
    const withoutPurpose = Buffer.concat([await owner.sign(Buffer.concat([KEY, payload])), payload])
    await expectFailure(verifyRecord(KEY, withoutPurpose, NOW), 'refused', /does not verify/)
  })

  it('refuses a record under the key of another peer or another image', async () => {
    const value = await signed()
    await expectFailure(verifyRecord(recordKey(idOf(stranger), HASH), value, NOW), 'refused', /does not verify/)
    await expectFailure(verifyRecord(recordKey(OWNER, OTHER), value, NOW), 'refused', /does not verify/)
    const crossed = await signed({ narHash: OTHER })
    await expectFailure(verifyRecord(KEY, crossed, NOW), 'refused', /its key's/)
  })

  it('refuses keys in any form but one', async () => {
    const peerIdAsCid = peerIdFromPrivateKey(owner).toCID().toString()
    const rsa = idOf(await generateKeyPair('secp256k1'))
    const forms = [
      `/narvik-image/${OWNER}/${HASH.toHex()}`, `/narvik-image/${OWNER}/${HASH.toNix32()}/`, `/narvik-image/${OWNER}`, `narvik-image/${OWNER}/${HASH.toNix32()}`,
      `/narvik-image/${peerIdAsCid}/${HASH.toNix32()}`, `/narvik-image/nobody/${HASH.toNix32()}`, `/other/${OWNER}/${HASH.toNix32()}`, `/narvik-image/${rsa}/${HASH.toNix32()}`, '',
    ]
    for (const form of forms) {
      const key = Buffer.from(form)
      await expectFailure(verifyRecord(key, await signed({}, { key }), NOW), 'refused', /key/)
    }
    const notUtf8 = Buffer.concat([Buffer.from(KEY), Buffer.of(0xff)])
    await expectFailure(verifyRecord(notUtf8, await signed({}, { key: notUtf8 }), NOW), 'refused', /key/)
  })

  it('refuses a record that is too large before it looks at it', async () => {
    await expectFailure(verifyRecord(Buffer.from('nonsense'), new Uint8Array(MAX_RECORD_BYTES + 1), NOW), 'refused', /4097 bytes/)
    await expectFailure(verifyRecord(KEY, new Uint8Array(64), NOW), 'refused', /64 bytes/)
  })

  it('refuses a record from another time, with room for clocks that differ', async () => {
    const expires = (at: number): Promise<Uint8Array> => signed({ expires: at })
    await verifyRecord(KEY, await expires(NOW - CLOCK_SKEW_MS + 1), NOW)
    await expectFailure(verifyRecord(KEY, await expires(NOW - CLOCK_SKEW_MS), NOW), 'refused', /expired/)
    await verifyRecord(KEY, await expires(NOW + MAX_RECORD_LIFETIME_MS + CLOCK_SKEW_MS), NOW)
    await expectFailure(verifyRecord(KEY, await expires(NOW + MAX_RECORD_LIFETIME_MS + CLOCK_SKEW_MS + 1), NOW), 'refused', /lives/)
    await verifyRecord(KEY, await signed({ seq: NOW + CLOCK_SKEW_MS }), NOW)
    await expectFailure(verifyRecord(KEY, await signed({ seq: NOW + CLOCK_SKEW_MS + 1 }), NOW), 'refused', /in the future/)
  })

  it('refuses other payloads, though signed', async () => {
    for (const changes of [{ version: 2 }, { status: 'maybe' }, { narSize: -1 }, { narSize: 2 ** 60 }, { manifestDigest: 'x' }, { more: 1 }, { seq: 1.5 }, { status: 'withdrawn' }]) {
      await expectFailure(verifyRecord(KEY, await signed(changes), NOW), 'refused', /another form/)
    }
  })
})

describe('RecordBook', () => {
  const bookAt = (now = (): number => NOW, maxRecords = 100): RecordBook => new RecordBook({ now, maxRecords })

  it('refuses what is older than what was seen, and two records with one number', async () => {
    const book = bookAt()
    const first = await signed({ seq: NOW })
    await book.accept(KEY, first)
    await book.accept(KEY, await signRecord(KEY, WITHDRAWN, owner))
    await expectFailure(book.accept(KEY, first), 'refused', /needed one above/)
    await expectFailure(book.accept(KEY, await signed({ seq: WITHDRAWN.seq })), 'refused', /needed one above/)
    expect(book.newest(OWNER, HASH)).toEqual(WITHDRAWN)
  })

  it('is not bound by what it took while the clock was ahead', async () => {
    let now = NOW + 1000 * RECORD_LIFETIME_MS
    const book = bookAt(() => now)
    await book.accept(KEY, await signed({ seq: now, expires: now + RECORD_LIFETIME_MS }))
    now = NOW
    expect(book.newest(OWNER, HASH)).toBeUndefined()
    await book.accept(KEY, await signed({ seq: NOW }))
    expect(book.newest(OWNER, HASH)?.seq).toBe(NOW)
  })

  it('ends with the newest, in whatever order records come', async () => {
    const values = await Promise.all(Array.from({ length: 8 }, (_, seq) => signed({ seq })))
    await fc.assert(fc.asyncProperty(fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7], { minLength: 1 }), async order => {
      const book = bookAt()
      await Promise.allSettled(order.map(seq => book.accept(KEY, values[seq] ?? new Uint8Array())))
      expect(book.newest(OWNER, HASH)?.seq).toBe(Math.max(...order))
    }), { numRuns: 30 })
  })

  it('takes the same record again, until it has expired', async () => {
    let now = NOW
    const book = bookAt(() => now)
    const value = await signed()
    await book.accept(KEY, value)
    await book.accept(KEY, value)
    now = HELD.expires + CLOCK_SKEW_MS
    await expectFailure(book.accept(KEY, value), 'refused', /expired/)
    expect(book.newest(OWNER, HASH)).toBeUndefined()
  })

  it('does not remember what it refused', async () => {
    const book = bookAt()
    await expectFailure(book.accept(KEY, await signed({ seq: NOW + 1000 }, { by: stranger })), 'refused', /does not verify/)
    await book.accept(KEY, await signed())
    expect(book.newest(OWNER, HASH)).toEqual(HELD)
  })

  it('holds a bounded number, and makes room by dropping what has expired', async () => {
    let now = NOW
    const book = bookAt(() => now, 3)
    const hashes = Array.from({ length: 5 }, (_, n) => NarHash.fromBytes(rangeOf(n + 5, 32)))
    const offer = async (narHash: NarHash | undefined): Promise<void> => {
      if (narHash === undefined) return
      const key = recordKey(OWNER, narHash)
      await book.accept(key, await signed({ narHash, seq: now, expires: now + RECORD_LIFETIME_MS }, { key }))
    }
    for (const narHash of hashes.slice(0, 3)) await offer(narHash)
    await offer(hashes[0])
    await expectFailure(offer(hashes[3]), 'refused', /3 live ones/)
    now += RECORD_LIFETIME_MS + CLOCK_SKEW_MS
    await offer(hashes[4])
  })

  it('makes room by dropping what has expired, however lately it came', async () => {
    let now = NOW
    const book = bookAt(() => now, 1)
    const key = recordKey(OWNER, OTHER)
    await book.accept(KEY, await signed({ expires: NOW + 1000 }))
    const next = await signed({ narHash: OTHER }, { key })
    await expectFailure(book.accept(key, next), 'refused', /1 live ones/)
    now = NOW + 1000 + CLOCK_SKEW_MS
    await book.accept(key, next)
  })

  it('leaves the room of others to them, however many records a member signs', async () => {
    const book = new RecordBook({ now: () => NOW, maxRecords: 100, maxOwned: 2 })
    const offer = async (n: number, by: PrivateKey): Promise<void> => {
      const narHash = NarHash.fromBytes(rangeOf(n, 32))
      const key = recordKey(idOf(by), narHash)
      await book.accept(key, await signed({ narHash }, { key, by }))
    }
    await offer(1, owner)
    await offer(2, owner)
    await expectFailure(offer(3, owner), 'refused', /2 live ones of its owner/)
    await offer(3, stranger)
  })

  it('selects the newest for the DHT', async () => {
    const book = bookAt()
    expect(await book.select(KEY, [await signed({ seq: 5 }), await signed({ seq: 9 }), await signed({ seq: 7 })])).toBe(1)
  })
})
