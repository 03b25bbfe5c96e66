import { isNarvikError, NarvikError } from '../../src/errors.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import type { Target } from './engine.ts'

/** An image that is spoken of, and its store path. */
export const HASH = NarHash.fromBytes(Uint8Array.from({ length: 32 }, (_, index) => index * 7))
export const SRI = HASH.toSri()
export const STORE_PATH = '/nix/store/7rjj9b0l7h6jr5qd6y4wz2g1xk8v0lgn-web-1.0'
export const DIGEST = 'ab'.repeat(32)
/** Chunks of the image. */
export const CHUNKS = 1000
export const METADATA = { narHash: SRI, narSize: 12, storePath: null, references: [], deriver: null, ca: null, signatures: [], name: null, manifestDigest: null }

/** Lets errors of ours pass: they are how bytes are refused. */
export function ours(run: (bytes: Uint8Array) => Promise<void> | void): Target['run'] {
  return async bytes => {
    try {
      await run(bytes)
    } catch (error) {
      if (!isNarvikError(error) || isNarvikError(error, 'internal')) throw error
    }
  }
}

/** Several decoders, each with the same bytes. */
export function eachOurs(runs: readonly ((bytes: Uint8Array) => Promise<void> | void)[]): Target['run'] {
  const all = runs.map(ours)
  return async bytes => { for (const run of all) await run(bytes) }
}

export function text(value: string): Uint8Array {
  return Buffer.from(value, 'utf8')
}

export function utf8(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8')
}

/** What is no JSON is refused before it gets there. */
export function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(utf8(bytes))
  } catch {
    throw new NarvikError('invalid-argument', 'no JSON')
  }
}

export function same(found: unknown, needed: unknown): void {
  const [one, other] = [shown(found), shown(needed)]
  if (one !== other) throw new Error(`found ${one} the second time, needed ${other}`)
}

export function shown(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => inner instanceof NarHash ? inner.toSri() : inner instanceof Map ? [...inner] : inner)
}


export function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
