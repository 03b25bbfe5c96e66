import { describe, expect, it } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { Jobs, type Progress } from '../../../src/tasks/jobs.ts'
import { waitFor } from '../../../src/tasks/wait-for.ts'
import { expectFailure, failureOf } from '../../helpers/failure.ts'
import { gate } from '../../helpers/fake-fleet.ts'
import { someHash } from '../../helpers/images.ts'

const image = someHash(1)
const reason = new NarvikError('interrupted', 'given up')

describe('jobs on one image', () => {
  it('are done one at a time, in the order in which they were asked for, also after a failure', async () => {
    const jobs = new Jobs()
    const done: string[] = []
    let busy = 0
    const work = (name: string) => async (): Promise<void> => {
      expect(++busy).toBe(1)
      await Promise.resolve()
      done.push(name)
      busy--
      if (name === 'b') throw new Error('b failed')
    }
    const all = ['a', 'b', 'c', 'd'].map(name => jobs.run(name, image, work(name)))
    expect(jobs.find(image)).toBe(all[3])
    await Promise.allSettled(all.map(job => job.result))
    expect(done).toEqual(['a', 'b', 'c', 'd'])
    expect(jobs.list()).toEqual([])
    expect(jobs.find(image)).toBeUndefined()
  })

  it('do not wait for those on another', async () => {
    const jobs = new Jobs()
    const held = gate()
    const slow = jobs.run('slow', image, () => held.opened)
    await jobs.run('quick', someHash(2), () => Promise.resolve()).result
    held.open()
    await slow.result
  })

  it('that wait are ended by their kind, and never begin', async () => {
    const jobs = new Jobs()
    const held = gate()
    const first = jobs.run('import', image, () => held.opened)
    const second = jobs.run('fetch', image, () => Promise.reject(new Error('it began')))
    jobs.abort(image, ['fetch'], reason)
    held.open()
    expect(await failureOf(second.result)).toBe(reason)
    await first.result
  })

  it('end when the daemon stops, and no new one begins', async () => {
    const jobs = new Jobs()
    let tidied = false
    jobs.run('fetch', image, job => new Promise((_resolve, reject) => {
      job.signal.addEventListener('abort', () => {
        setImmediate(() => {
          tidied = true
          reject(job.signal.reason as Error)
        })
      })
    }))
    await Promise.resolve()
    await Promise.resolve()
    await Promise.resolve()
    await jobs.stop()
    expect(tidied).toBe(true)
    expect(() => jobs.run('fetch', image, () => Promise.resolve())).toThrow(/stopping/)
  })
})

describe('a caller of a job', () => {
  it('hears where it is at once, then each phase, and nothing after it has its answer', async () => {
    const jobs = new Jobs()
    const held = gate()
    const job = jobs.run('fetch', image, async self => {
      self.report({ phase: 'receiving', bytes: 5, totalBytes: 10 })
      await held.opened
      self.report({ phase: 'verifying', bytes: 0 })
      return 'done'
    })
    const seen: Progress[] = []
    const answer = waitFor(job, { onProgress: progress => { seen.push(progress) } })
    held.open()
    expect(await answer).toBe('done')
    const count = seen.length
    job.report({ phase: 'publishing' })
    expect(seen.length).toBe(count)
    expect(seen.map(({ phase }) => phase)).toEqual(['finding', 'receiving', 'verifying'])
    expect(seen.every(({ narHash }) => narHash === image.toSri())).toBe(true)
  })

  it('whose time is up, or who has left before, is told so', async () => {
    const jobs = new Jobs()
    const held = gate()
    const job = jobs.run('fetch', image, self => {
      self.report({ phase: 'receiving', bytes: 5, totalBytes: 10 })
      return held.opened
    })
    await expectFailure(waitFor(job, { timeoutSeconds: 0.001 }), 'timed-out', /in 0.001 s: found it receiving, 5 B of 10 B, needed it done/)
    await expectFailure(waitFor(job, { signal: AbortSignal.abort() }), 'interrupted', /the caller went away/)
    held.open()
    await waitFor(job, {})
  })

  it('gets the failure of the job', async () => {
    const job = new Jobs().run('fetch', image, () => Promise.reject(reason))
    expect(await failureOf(waitFor(job, { timeoutSeconds: 1000 }))).toBe(reason)
  })
})
