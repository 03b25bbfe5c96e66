import { setImmediate } from 'node:timers/promises'
import { parentPort } from 'node:worker_threads'
import { messageOf } from '../../errors.ts'
import { Chunker } from '../../image/chunker.ts'
import { type ChunkColumns, ChunkListProblem } from '../../image/chunk-list.ts'
import { piecesOf, type SharedPieces } from './piece-ring.ts'

export interface ChunkJob {
  readonly pieces: SharedPieces
  readonly narSize: number
}

export type ChunkReply =
  | { readonly kind: 'done', readonly columns: ChunkColumns }
  | { readonly kind: 'failed', readonly overLimit: boolean, readonly message: string }

// The thread that cuts a NAR into chunks while another one takes its SHA-256.

parentPort?.on('message', (job: ChunkJob) => void run(job))

async function run({ pieces, narSize }: ChunkJob): Promise<void> {
  const reply = await chunk(pieces, narSize)
  parentPort?.postMessage(reply, reply.kind === 'done' ? [reply.columns.offsets.buffer, reply.columns.hashes.buffer] : [])
}

/** Pieces after which the event loop has a turn: Node frees what native code has made, such as a chunk's hash, in no other place. */
const PIECES_A_TURN = 32

async function chunk(pieces: SharedPieces, narSize: number): Promise<ChunkReply> {
  const chunker = new Chunker(narSize)
  let failure: unknown
  let taken = 0
  // Also after a failure the pieces are worked off, so that the other thread never waits for room.
  for (const piece of piecesOf(pieces)) {
    try {
      if (failure === undefined) chunker.update(piece)
    } catch (error) {
      failure = error
    }
    taken += 1
    if (taken % PIECES_A_TURN === 0) await setImmediate()
  }
  try {
    if (failure === undefined) return { kind: 'done', columns: chunker.finish().columns }
  } catch (error) {
    failure = error
  }
  return { kind: 'failed', overLimit: failure instanceof ChunkListProblem && failure.overLimit, message: messageOf(failure) }
}
