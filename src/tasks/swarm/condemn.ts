import type { ChunkList } from '../../image/chunk-list.ts'
import type { TaskContext } from '../context.ts'
import type { Providers } from '../providers.ts'
import type { Books } from './books.ts'

/** A peer has sent a chunk that is none: it is banned, asked no more, and named in the evidence. */
export function condemn({ node, settings }: Pick<TaskContext, 'node' | 'settings'>, { books, providers, chunks }: { books: Books, providers: Providers, chunks: ChunkList }, peerId: string, chunk: number): void {
  const detail = `its chunk ${chunk}, at byte ${chunks.offset(chunk)} of the NAR, was not what its hash says`
  books.lied(peerId, detail)
  books.wasted(peerId, chunks.length(chunk))
  providers.lied(peerId, detail)
  node.ban(peerId, settings.banMs, detail)
}
