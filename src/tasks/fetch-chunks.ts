import { pipe } from 'it-pipe'
import { messageOf, NarvikError } from '../errors.ts'
import { isChunk, runBytes } from '../image/chunk-check.ts'
import type { ChunkList } from '../image/chunk-list.ts'
import type { ChunkRun, ChunkSet } from '../image/chunk-set.ts'
import { fetchNar } from '../p2p/nar/client.ts'
import type { Provider } from '../p2p/router.ts'
import { exactly } from '../p2p/stages.ts'
import type { PeerShare } from '../image/verdict.ts'
import type { TaskContext } from './context.ts'
import { isPeersFault } from './fetch-image.ts'
import type { Job } from './jobs.ts'
import { guardPace } from './pace.ts'
import { Providers } from './providers.ts'

export interface ChunkFetch {
  readonly chunks: ChunkList
  /** Chunks that are missing; each is taken out when it is in the tree. */
  readonly missing: ChunkSet
  readonly write: (offset: number, bytes: Uint8Array) => Promise<void>
}

/**
 * Brings some chunks of an image from one provider after another, as ranges of its NAR, and none of its other bytes. Who sends a chunk that isn't one is
 * banned. Answers who sent what.
 * @throws NarvikError `no-provider`; the reason of the job's signal.
 */
export async function fetchChunks(context: TaskContext, job: Job<unknown>, fetch: ChunkFetch): Promise<PeerShare[]> {
  const providers = new Providers(context, { narHash: job.narHash, waitMs: context.settings.providerWaitMs, signal: job.signal })
  const taken = new Map<string, number>()
  const liars = new Map<string, string>()
  try {
    while (fetch.missing.size > 0) {
      const provider = await providers.next()
      const before = fetch.missing.size
      try {
        await fetchFrom(context, job, provider, { ...fetch, hasAlternative: () => providers.hasSpare(), onTaken: bytes => { taken.set(provider.peerId, (taken.get(provider.peerId) ?? 0) + bytes) } })
      } catch (error) {
        if (!isPeersFault(error)) throw error
        providers.failed(provider, messageOf(error))
        if (error instanceof Lie) liars.set(provider.peerId, banLiar(context, provider, providers, error))
        else if (fetch.missing.size < before) providers.progressed()
      }
    }
  } finally {
    providers.close()
  }
  return sharesOf(taken, liars)
}

class Lie extends NarvikError {
  constructor(chunk: number, offset: number) {
    super('peer-failed', `Cannot take chunk ${chunk}: found other bytes at byte ${offset} of the NAR, needed those of its hash`)
  }
}

interface Reception extends ChunkFetch {
  readonly hasAlternative: () => boolean
  readonly onTaken: (bytes: number) => void
}

async function fetchFrom(context: TaskContext, { narHash, signal }: Job<unknown>, { peerId }: Provider, reception: Reception): Promise<void> {
  const { node, settings } = context
  const { chunks, missing, hasAlternative } = reception
  const pace = { windowMs: settings.stallMs, bytesPerSecond: settings.slowBytesPerSecond, hasAlternative }
  for (const run of [...missing.runs()]) {
    const length = runBytes(chunks, run)
    const answer = await fetchNar(node, peerId, narHash, chunks.offset(run.first), length, { signal, stallMs: settings.stallMs })
    if (answer.status !== 'ok') throw new NarvikError('peer-failed', `Cannot receive from ${peerId}: it answers ${answer.status}`)
    await pipe(answer.body, guardPace(pace), exactly(length), source => take(source, run, reception))
  }
}

/** Writes each chunk of a run as soon as all of it has come, and is what it should be. */
async function take(source: AsyncIterable<Uint8Array>, run: ChunkRun, { chunks, missing, write, onTaken }: Reception): Promise<void> {
  let chunk = run.first
  let parts: Uint8Array[] = []
  let held = 0
  for await (const bytes of source) {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + chunks.length(chunk) - held)
      // A buffer may be used again by whoever gave it.
      parts.push(Uint8Array.from(part))
      held += part.length
      at += part.length
      if (held < chunks.length(chunk)) continue
      const whole = Buffer.concat(parts)
      if (!isChunk(chunks, chunk, whole)) throw new Lie(chunk, chunks.offset(chunk))
      await write(chunks.offset(chunk), whole)
      missing.delete(chunk)
      onTaken(whole.length)
      chunk++
      parts = []
      held = 0
    }
  }
}

function banLiar({ node, settings }: TaskContext, { peerId }: Provider, providers: Providers, lie: Lie): string {
  providers.exclude([peerId])
  node.ban(peerId, settings.banMs, lie.message)
  return lie.message
}

function sharesOf(taken: ReadonlyMap<string, number>, liars: ReadonlyMap<string, string>): PeerShare[] {
  const peers = new Set([...taken.keys(), ...liars.keys()])
  return Array.from(peers, peerId => ({ peerId, bytes: taken.get(peerId) ?? 0, outcome: liars.has(peerId) ? 'lied' : 'used', detail: liars.get(peerId) ?? null }))
}
