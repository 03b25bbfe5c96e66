import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { gather } from '../../../src/tasks/gather.ts'
import { guardPace } from '../../../src/tasks/pace.ts'
import { expectFailure, failureOf } from '../../helpers/failure.ts'
import { collect } from '../../helpers/trees.ts'

async function* of(...parts: readonly (Uint8Array | Error)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    await Promise.resolve()
    if (part instanceof Error) throw part
    yield part
  }
}

describe('gather', () => {
  it('changes the pieces and not the bytes, and none but the last is small', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 })), fc.integer({ min: 1, max: 100 }), async (parts, size) => {
      const out: Uint8Array[] = []
      for await (const bytes of gather(size)(of(...parts))) out.push(bytes)
      expect(Buffer.concat(out).equals(Buffer.concat(parts))).toBe(true)
      for (const bytes of out.slice(0, -1)) expect(bytes.length).toBeGreaterThanOrEqual(size)
    }))
  })

  it('passes on what came before a failure, then the failure', async () => {
    const broken = new Error('broken')
    const out: Uint8Array[] = []
    const failure = await failureOf((async () => { for await (const bytes of gather(100)(of(Buffer.from('ab'), Buffer.from('c'), broken))) out.push(bytes) })())
    expect(failure).toBe(broken)
    expect(Buffer.concat(out).toString()).toBe('abc')
  })
})

describe('guardPace', () => {
  const slowly = async function* (): AsyncGenerator<Uint8Array> {
    for (let piece = 0; piece < 3; piece++) {
      await delay(2)
      yield Buffer.alloc(10)
    }
  }

  it('leaves a slow source where there is another one, and only there', async () => {
    const pace = { windowMs: 1, bytesPerSecond: 1e9 }
    await expectFailure(collect(guardPace({ ...pace, hasAlternative: () => true })(slowly())), 'peer-failed', /found \d+ bytes\/s, needed 1000000000/)
    expect((await collect(guardPace({ ...pace, hasAlternative: () => false })(slowly()))).length).toBe(30)
  })

  it('does not hold the time that the taker takes against the source', async () => {
    const quick = of(Buffer.alloc(10), Buffer.alloc(10), Buffer.alloc(10))
    let taken = 0
    for await (const bytes of guardPace({ windowMs: 1000, bytesPerSecond: 1e12, hasAlternative: () => true })(quick)) {
      taken += bytes.length
      await delay(400)
    }
    expect(taken).toBe(30)
  })
})
