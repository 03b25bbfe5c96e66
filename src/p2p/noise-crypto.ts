import { type CipherChaCha20Poly1305Types, createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import type { ICryptoInterface } from '@chainsafe/libp2p-noise'
import { defaultCrypto } from '@chainsafe/libp2p-noise/crypto'

/**
 * The stock crypto of Noise, with full packets done at less cost: their key is made ready once and not for each packet, and a packet
 * leaves in one buffer, as each one given to a socket is a system call.
 */
export const noiseCrypto: ICryptoInterface = {
  ...defaultCrypto,
  chaCha20Poly1305Encrypt: (plaintext, nonce, ad, key) => {
    if (plaintext.byteLength < SMALL_PACKET_BYTES) return defaultCrypto.chaCha20Poly1305Encrypt(plaintext, nonce, ad, key)
    const cipher = createCipheriv(CIPHER, readied(key), nonce, { authTagLength: TAG_BYTES })
    cipher.setAAD(ad, { plaintextLength: plaintext.byteLength })
    const parts = plaintext instanceof Uint8Array ? [cipher.update(plaintext)] : Array.from(plaintext, part => cipher.update(part))
    parts.push(cipher.final(), cipher.getAuthTag())
    return Buffer.concat(parts)
  },
  chaCha20Poly1305Decrypt: (ciphertext, nonce, ad, key, dst) => {
    if (ciphertext.byteLength < SMALL_PACKET_BYTES) return defaultCrypto.chaCha20Poly1305Decrypt(ciphertext, nonce, ad, key, dst)
    const length = ciphertext.byteLength - TAG_BYTES
    const decipher = createDecipheriv(CIPHER, readied(key), nonce, { authTagLength: TAG_BYTES })
    decipher.setAAD(ad, { plaintextLength: length })
    decipher.setAuthTag(ciphertext.subarray(length))
    // Where Noise has a place for the text, the packet without its tag lies there already, in one piece; the tag proves that it does.
    const text = decipher.update(dst?.byteLength === length ? dst : ciphertext.subarray(0, length))
    // Throws where the tag doesn't fit; a stream cipher has nothing left to give here.
    decipher.final()
    return text
  },
}

const CIPHER: CipherChaCha20Poly1305Types = 'chacha20-poly1305'
const TAG_BYTES = 16
/** Below it the stock crypto has a faster way. */
const SMALL_PACKET_BYTES = 1200

const keys = new WeakMap<Uint8Array, KeyObject>()

/** The key of one direction of a connection is one array from the handshake on. */
function readied(key: Uint8Array): KeyObject {
  let ready = keys.get(key)
  if (ready === undefined) {
    ready = createSecretKey(key)
    keys.set(key, ready)
  }
  return ready
}
