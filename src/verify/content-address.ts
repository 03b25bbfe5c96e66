import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { isNarvikError, messageOf } from '../errors.ts'
import { Blake3 } from '../image/blake3.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { dumpTree } from '../nar/dump.ts'
import { parseContentAddress, storePathOf, type ContentAddress } from '../nix/content-address.ts'
import type { HashAlgorithm } from '../nix/hash.ts'
import { parseStorePath } from '../nix/store-path.ts'

export interface AddressClaim {
  readonly tree: string
  /** As it was found. */
  readonly narHash: NarHash
  readonly storePath: string
  readonly references: readonly string[]
  readonly ca: string
}

/**
 * Whether the store path follows from its content address, and the content address from the tree: such a path needs
 * nobody's word. Answers undefined where it does, or what is wrong, completing `its content address is no proof: …`.
 */
export async function contradictionIn(claim: AddressClaim, options: { signal?: AbortSignal } = {}): Promise<string | undefined> {
  const { tree, narHash, storePath, references } = claim
  const storeDir = dirname(storePath)
  try {
    const { name, hashPart } = parseStorePath(storePath, storeDir)
    const ca = parseContentAddress(claim.ca)
    const selfReference = references.includes(storePath)
    const computed = storePathOf({ name, ca, references: references.filter(path => path !== storePath), selfReference, storeDir })
    if (computed !== storePath) return `${claim.ca} belongs to ${computed}`
    const found = ca.method === 'nar' && ca.hash.algorithm === 'sha256' && !selfReference ? narHash.bytes : await digest(tree, ca, selfReference ? hashPart : null, options)
    if (found === undefined) return `its tree can not be hashed as ${claim.ca} says`
    return Buffer.from(found).equals(ca.hash.bytes) ? undefined : `its content is not that of ${claim.ca}`
  } catch (error) {
    if (isNarvikError(error, 'invalid-argument')) return messageOf(error)
    throw error
  }
}

async function digest(tree: string, { method, hash: { algorithm } }: ContentAddress, selfHashPart: string | null, options: { signal?: AbortSignal }): Promise<Uint8Array | undefined> {
  const hash = hasher(algorithm)
  switch (method) {
    case 'git':
      return undefined
    case 'nar':
      for await (const bytes of selfHashPart === null ? dumpTree(tree, options) : withoutSelf(dumpTree(tree, options), selfHashPart)) hash.update(bytes)
      return hash.digest()
    case 'text':
    case 'flat': {
      const stat = await lstat(tree)
      if (!stat.isFile() || (stat.mode & 0o100) !== 0) return undefined
      for await (const bytes of createReadStream(tree, options) as AsyncIterable<Buffer>) hash.update(bytes)
      return hash.digest()
    }
  }
}

/**
 * The NAR of a path that refers to itself, as its content address is computed over it: each occurrence of its own hash
 * part is zeros, and their offsets stand behind the NAR (nix: HashModuloSink in src/libstore/references.cc).
 */
export async function* withoutSelf(nar: AsyncIterable<Uint8Array>, hashPart: string): AsyncGenerator<Uint8Array, void, undefined> {
  const offsets: number[] = []
  let start = 0
  let kept = Buffer.alloc(0)
  for await (const bytes of nar) {
    const window = Buffer.concat([kept, bytes])
    for (let at = window.indexOf(hashPart, 0, 'latin1'); at !== -1; at = window.indexOf(hashPart, at, 'latin1')) {
      offsets.push(start + at)
      window.fill(0, at, at + hashPart.length)
    }
    // An occurrence may begin in this buffer and end in the next.
    const done = Math.max(0, window.length - hashPart.length + 1)
    yield window.subarray(0, done)
    kept = window.subarray(done)
    start += done
  }
  yield kept
  yield Buffer.from(offsets.map(offset => `|${offset}`).join(''))
}

function hasher(algorithm: HashAlgorithm): { update(bytes: Uint8Array): unknown, digest(): Uint8Array } {
  if (algorithm !== 'blake3') return createHash(algorithm)
  const hash = new Blake3()
  return { update: bytes => hash.update(bytes), digest: () => Buffer.from(hash.hex(), 'hex') }
}
