import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Transferable, Worker, WorkerOptions } from 'node:worker_threads'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { removeTree } from '../../../src/nar/remove.ts'
import { hashContents } from '../../../src/nar/thread/hash-contents.ts'
import { measureFiles } from '../../../src/nar/thread/measure-files.ts'
import { walkNames, walkTree } from '../../../src/nar/thread/walk.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { directory, narBytes, regular } from '../../helpers/nar-bytes.ts'
import { plant, withTemporaryDirectory } from '../../helpers/trees.ts'
import { randomOf } from '../../vectors/fastcdc/inputs.ts'

vi.mock('../../../src/limits.ts', async importOriginal => ({
  ...await importOriginal<typeof import('../../../src/limits.ts')>(), HELPER_PATIENCE_MS: 500, CHUNK_THREAD_PATIENCE_MS: 500, TREE_THREAD_PATIENCE_MS: 10_000,
}))

type Job = Partial<Record<'shared' | 'ring' | 'pieces', { readonly control: Int32Array, readonly slots: SharedArrayBuffer }>> & { readonly steps?: Int32Array }

/** What the next threads of a kind run in place of their own program; what all of them were given; and those that have not ended. */
const threads = vi.hoisted(() => ({ kind: '', program: null as string | null, jobs: [] as Job[], alive: new Set<Worker>() }))

vi.mock('node:worker_threads', async importOriginal => {
  const real = await importOriginal<typeof import('node:worker_threads')>()
  class ProgrammedWorker extends real.Worker {
    constructor(file: URL, options: WorkerOptions) {
      const program = file.pathname.endsWith(`/${threads.kind}.ts`) ? threads.program : null
      super(program ?? file, program === null ? options : { ...options, eval: true })
      threads.alive.add(this)
      this.once('exit', () => threads.alive.delete(this))
    }

    override postMessage(job: Job, transfer?: readonly Transferable[]): void {
      threads.jobs.push(job)
      // It begins with the first share before anybody else can: both kinds of work count what was begun in the first number.
      const begun = threads.program === null ? undefined : job.shared ?? job.ring
      if (begun !== undefined) Atomics.add(begun.control, 0, 1)
      super.postMessage(job, transfer)
    }
  }
  return { ...real, Worker: ProgrammedWorker }
})

/** What a thread does once it has taken a share of the work that it will never hand in. */
const FATES = {
  'ends': 'process.exit(1)',
  'fails': 'throw new Error("out of memory")',
  'falls silent': 'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)',
}
const fates = Object.keys(FATES) as (keyof typeof FATES)[]

function lose(kind: 'helper' | 'chunk-thread' | 'worker', fate: keyof typeof FATES | null): void {
  threads.kind = kind
  threads.program = fate === null ? null : `require('node:worker_threads').parentPort.on('message', () => { ${FATES[fate]} })`
}

const noCheck = (): void => undefined
const TREE = directory(Array.from({ length: 3000 }, (_, index) => ({ name: Buffer.from(`f${String(index).padStart(5, '0')}`), tree: regular(Buffer.alloc(index % 40 * 100, index), index % 3 === 0) })))

beforeEach(async () => {
  threads.program = null
  // What is kept for the next tree.
  await Promise.all([...threads.alive].map(thread => thread.terminate()))
})

async function withTree(use: (path: string) => Promise<void>): Promise<void> {
  await withTemporaryDirectory(async scratch => {
    plant(join(scratch, 'tree'), TREE)
    await use(join(scratch, 'tree'))
  })
}

async function untilNoneIsAlive(): Promise<void> {
  await expect.poll(() => threads.alive.size).toBe(0)
}

describe('a thread that was to help', () => {
  it.each(fates)('to look at the files, and %s, is done without, and gone', async fate => {
    await withTree(async path => {
      lose('helper', fate)
      const listing = walkNames(path, noCheck)
      await measureFiles(path, listing, noCheck)
      expect(listing.columns).toEqual(walkTree(path, noCheck).columns)
      await untilNoneIsAlive()
    })
  })

  it.each(fates)('to read them, and %s, is done without, and gone', async fate => {
    await withTree(async path => {
      const expected = createHash('sha256').update(narBytes(TREE)).digest('hex')
      const hash = async (): Promise<string> => Buffer.from((await hashContents(path, walkTree(path, noCheck), { check: noCheck })).digest).toString('hex')
      lose('helper', fate)
      expect(await hash()).toBe(expected)
      await untilNoneIsAlive()
      threads.program = null
      threads.jobs.length = 0
      const [first, second] = [await hash(), await hash()]
      expect([first, second]).toEqual([expected, expected])
      expect(threads.jobs).toHaveLength(2)
    })
  })

  it('and hangs, keeps the memory that it may still write to', async () => {
    await withTree(async path => {
      const hash = async (fate: keyof typeof FATES | null): Promise<SharedArrayBuffer | undefined> => {
        lose('helper', fate)
        await hashContents(path, walkTree(path, noCheck), { check: noCheck })
        return threads.jobs.at(-1)?.ring?.slots
      }
      const given = await hash('falls silent')
      expect(given).toBeDefined()
      expect(await hash(null)).not.toBe(given)
    })
  })

  it('and ended while it had nothing to do, gets nothing to do', async () => {
    await withTree(async path => {
      const measure = (): Promise<void> => measureFiles(path, walkNames(path, noCheck), noCheck)
      await measure()
      const [kept] = threads.alive
      await kept?.terminate()
      await measure()
      expect(threads.alive).not.toContain(kept)
      expect(threads.alive.size).toBe(1)
    })
  })

  it('and failed while it had nothing to do, takes nobody with it', async () => {
    await withTree(async path => {
      threads.kind = 'helper'
      threads.program = "const { parentPort } = require('node:worker_threads'); parentPort.on('message', () => { parentPort.postMessage('done'); setTimeout(() => { throw new Error('later') }, 1000) })"
      const listing = walkNames(path, noCheck)
      await measureFiles(path, listing, noCheck)
      await untilNoneIsAlive()
      expect(listing.columns).toEqual(walkTree(path, noCheck).columns)
    })
  })
})

describe('a thread that was to cut chunks', () => {
  it.each(fates.flatMap(fate => [[fate, 5_000_000], [fate, 21_000_000]] as const))('and %s, fails the hash of %i bytes, and is gone', async (fate, size) => {
    await withTemporaryDirectory(async scratch => {
      plant(join(scratch, 'file'), regular(randomOf(1, size)))
      const hash = (): ReturnType<typeof hashContents> => hashContents(join(scratch, 'file'), walkTree(join(scratch, 'file'), noCheck), { check: noCheck, chunks: true })
      lose('chunk-thread', fate)
      await expectFailure(hash(), 'internal', /Cannot cut a NAR into chunks: found that the thread for it (?:does nothing|failed)/)
      await untilNoneIsAlive()
    })
  })
})

describe('a thread that was to handle a tree', () => {
  it('and failed while it had nothing to do, takes nobody with it', async () => {
    threads.kind = 'worker'
    threads.program = "const { parentPort } = require('node:worker_threads'); parentPort.on('message', () => { parentPort.postMessage({ kind: 'done', result: {} }); setTimeout(() => { throw new Error('later') }, 1000) })"
    await removeTree('/nowhere')
    await untilNoneIsAlive()
  })

  it.each(fates)('and %s, fails that, and the next one is handled', async fate => {
    await withTree(async path => {
      lose('worker', fate)
      await expectFailure(hashTree(path), 'internal', /Cannot hash .*: found that the thread for it (?:failed \(|has done nothing for 10 s, needed an answer)/)
      await untilNoneIsAlive()
      threads.program = null
      expect((await hashTree(path)).narHash.toHex()).toBe(createHash('sha256').update(narBytes(TREE)).digest('hex'))
    })
  })

  it('and falls silent, leaves its place to those that wait', async () => {
    await withTree(async path => {
      lose('worker', 'falls silent')
      const lost = Promise.all(['a', 'b'].map(name => expectFailure(hashTree(join(path, name)), 'internal', /has done nothing/)))
      threads.program = null
      const next = hashTree(path)
      await lost
      expect((await next).narSize).toBe(narBytes(TREE).length)
    })
  })

  it('and falls silent while it goes slowly, is not waited for', async () => {
    await withTree(async path => {
      lose('worker', 'falls silent')
      await expectFailure(hashTree(path, { bytesPerSecond: 1_000_000 }), 'internal', /has done nothing/)
      threads.program = null
      await untilNoneIsAlive()
    })
  })

  it('counts its steps', async () => {
    await withTree(async path => {
      threads.jobs.length = 0
      await hashTree(path)
      const [job] = threads.jobs
      expect(job?.steps?.[0]).toBeGreaterThan(1)
    })
  })

  it('and takes steps, is waited for however long it takes', async () => {
    await withTree(async path => {
      threads.kind = 'worker'
      threads.program = "const { parentPort } = require('node:worker_threads'); parentPort.on('message', ({ steps }) => { let left = 240; const timer = setInterval(() => { Atomics.add(steps, 0, 1); if (--left > 0) return; clearInterval(timer); parentPort.postMessage({ kind: 'done', result: {} }) }, 50) })"
      await removeTree(path)
    })
  })
})
