import { describe, expect, it } from 'vitest'
import { copied, freeOnceCopied } from '../../../src/p2p/freeing.ts'

const LENGTH = 8192

describe('a buffer that is freed once it is copied', () => {
  it('is there until the last of its bytes was copied, in whatever parts', () => {
    const bytes = new Uint8Array(LENGTH).fill(1)
    freeOnceCopied(bytes)
    copied(bytes.subarray(5000))
    copied(bytes.subarray(0, 4999))
    expect(bytes.byteLength).toBe(LENGTH)
    copied(bytes.subarray(4999, 5000))
    expect(bytes.byteLength).toBe(0)
    copied(bytes)
  })

  it('is none of which others have a part', () => {
    const memory = new Uint8Array(2 * LENGTH)
    const bytes = memory.subarray(0, LENGTH)
    freeOnceCopied(bytes)
    copied(bytes)
    copied(memory.subarray(LENGTH))
    expect(memory.byteLength).toBe(2 * LENGTH)
  })

  it('is none of which nobody has said so', () => {
    const bytes = new Uint8Array(LENGTH)
    copied(bytes)
    expect(bytes.byteLength).toBe(LENGTH)
  })
})
