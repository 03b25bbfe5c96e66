import { NarvikError } from '../errors.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import { type ChunkRun, ChunkSet } from '../image/chunk-set.ts'
import type { TaskContext } from './context.ts'
import type { Job } from './jobs.ts'
import { Providers } from './providers.ts'
import type { Books } from './swarm/books.ts'
import { condemn } from './swarm/condemn.ts'
import { seedOf } from './swarm/random.ts'
import { Repeats } from './swarm/repeats.ts'
import { Scheduler } from './swarm/scheduler.ts'
import { Sources } from './swarm/sources.ts'

export interface ChunkFetch {
  readonly chunks: ChunkList
  readonly manifestDigest: string
  /** Chunks that are to be brought. */
  readonly missing: ChunkSet
  /** Where it is put down who sent what. */
  readonly books: Books
  readonly write: (offset: number, bytes: Uint8Array) => Promise<void>
}

/**
 * Brings some chunks of an image from its swarm, from several peers at once, and nothing else of it. Each chunk is held against its hash as it comes; who sends one that
 * isn't right is banned.
 * @throws NarvikError `no-provider`; what `write` throws; the reason of the job's signal.
 */
export async function fetchChunks(context: TaskContext, job: Job<unknown>, fetch: ChunkFetch): Promise<void> {
  const { chunks, manifestDigest, missing, books, write } = fetch
  const { narHash, signal } = job
  if (missing.size === 0) return
  const repeats = new Repeats(chunks, chunk => missing.has(chunk))
  const scheduler = new Scheduler(chunks, { seed: seedOf(context.node.peerId), proven: allBut(missing), copies: repeats.copies })
  const providers = new Providers(context, { narHash, waitMs: context.settings.providerWaitMs, signal })
  const take = async (peerId: string, run: ChunkRun, bytes: Uint8Array): Promise<void> => {
    await write(chunks.offset(run.first), bytes)
    books.received(peerId, bytes.length)
    for (const [copy, same] of repeats.of(run, bytes)) {
      await write(chunks.offset(copy), same)
      books.reused(narHash, same.length)
    }
  }
  const sources = new Sources({
    context, scheduler, providers, signal,
    question: { narHash, manifestDigest, chunks },
    sink: {
      take,
      wasted: (peerId, bytes) => { books.wasted(peerId, bytes) },
      lied: (peerId, chunk) => { condemn(context, { books, providers, chunks }, peerId, chunk) },
      failed: (peerId, reason) => { books.failed(peerId, reason) },
    },
  })
  try {
    await sources.run()
  } catch (error) {
    if (!(error instanceof NarvikError)) throw error
    for (const { peerId, detail } of providers.shares()) if (detail !== null) books.failed(peerId, detail)
    throw error
  } finally {
    providers.close()
  }
}

function allBut(missing: ChunkSet): ChunkSet {
  const others = ChunkSet.full(missing.capacity)
  for (const chunk of missing.from(0)) others.delete(chunk)
  return others
}
