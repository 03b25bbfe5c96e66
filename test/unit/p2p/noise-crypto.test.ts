import { defaultCrypto } from '@chainsafe/libp2p-noise/crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { noiseCrypto } from '../../../src/p2p/noise-crypto.ts'

const nonce = fc.uint8Array({ minLength: 12, maxLength: 12 })
const key = fc.uint8Array({ minLength: 32, maxLength: 32 })
/** Around the size below which packets go another way, and the largest packet. */
const text = fc.oneof(fc.uint8Array({ maxLength: 1300, size: 'max' }), fc.integer({ min: 1184, max: 65_519 }).map(length => Buffer.alloc(length, length)))
const ad = new Uint8Array(0)

describe('the crypto of Noise', () => {
  it('agrees with the stock one in both directions', () => {
    fc.assert(fc.property(text, nonce, key, (plain, n, k) => {
      const packet = noiseCrypto.chaCha20Poly1305Encrypt(plain, n, ad, k).subarray()
      expect(Buffer.from(packet).equals(defaultCrypto.chaCha20Poly1305Encrypt(plain, n, ad, k).subarray())).toBe(true)
      const opened = noiseCrypto.chaCha20Poly1305Decrypt(Buffer.from(packet), n, ad, k).subarray()
      expect(Buffer.from(opened).equals(plain)).toBe(true)
      const dst = Buffer.from(packet).subarray(0, plain.length)
      expect(Buffer.from(noiseCrypto.chaCha20Poly1305Decrypt(Buffer.from(packet), n, ad, k, dst).subarray()).equals(plain)).toBe(true)
    }))
  })

  it('refuses a packet of which one bit is another', () => {
    fc.assert(fc.property(text, nonce, key, fc.nat(), (plain, n, k, at) => {
      const packet = Buffer.from(noiseCrypto.chaCha20Poly1305Encrypt(plain, n, ad, k).subarray())
      packet.writeUInt8(packet.readUInt8(at % packet.length) ^ 1, at % packet.length)
      const dst = Buffer.from(packet.subarray(0, plain.length))
      expect(() => noiseCrypto.chaCha20Poly1305Decrypt(packet, n, ad, k, dst)).toThrow()
      expect(() => noiseCrypto.chaCha20Poly1305Decrypt(packet, n, ad, k)).toThrow()
    }))
  })

  it('refuses a place for the text that holds another packet', () => {
    const [n, k] = [new Uint8Array(12), new Uint8Array(32)]
    const packet = Buffer.from(noiseCrypto.chaCha20Poly1305Encrypt(Buffer.alloc(5000), n, ad, k).subarray())
    expect(() => noiseCrypto.chaCha20Poly1305Decrypt(packet, n, ad, k, Buffer.alloc(5000))).toThrow()
  })
})
