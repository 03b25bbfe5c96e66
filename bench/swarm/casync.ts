import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { runMetered, serveFiles } from './plain-http.ts'
import { Star } from './network.ts'
import type { Versions } from './disk-image.ts'

/** What it took to bring the next version to a host that has the old one. */
export interface Update {
  readonly name: string
  readonly seconds: number
  /** Bytes on the receiver's wire. */
  readonly received: number
  readonly sent: number
  readonly cpuSeconds: number
}

/** The update, and the bytes of the chunks that the old version lacks, as they are before compression. */
export interface CasyncUpdate extends Update {
  readonly newChunkBytes: number
}

/** casync over plain HTTP: a store of chunks on a web server, and the old version as a seed at the receiver. */
export async function updateByCasync(versions: Versions, parent: string, mbit: number): Promise<CasyncUpdate> {
  const dir = join(parent, 'casync')
  const root = join(dir, 'www')
  await mkdir(root, { recursive: true })
  const index = join(root, 'next.caibx')
  await execa('casync', ['make', `--store=${join(root, 'store.castr')}`, index, versions.next])
  const oldIndex = join(dir, 'old.caibx')
  await execa('casync', ['make', `--store=${join(dir, 'old.castr')}`, oldIndex, versions.old])
  await using star = await Star.build(2, { mbit })
  const [provider, receiver] = star.stations
  if (provider === undefined || receiver === undefined) throw new Error('Cannot measure without two stations')
  const { url, stop } = await serveFiles(provider, { dir, root })
  const before = await receiver.link.traffic()
  const started = performance.now()
  const out = join(dir, 'out.raw')
  const { cpuSeconds } = await runMetered(receiver, 'casync', 'extract', `--store=${url}/store.castr`, `--seed=${versions.old}`, `${url}/next.caibx`, out)
  const seconds = (performance.now() - started) / 1000
  const after = await receiver.link.traffic()
  await stop()
  await execa('cmp', [versions.next, out])
  const newChunkBytes = bytesLacking(chunksIn(await readFile(index)), chunksIn(await readFile(oldIndex)))
  return { name: 'casync', seconds, received: after.received - before.received, sent: after.sent - before.sent, cpuSeconds, newChunkBytes }
}

function bytesLacking(wanted: ReadonlyMap<string, number>, there: ReadonlyMap<string, number>): number {
  return [...wanted].reduce((total, [id, length]) => there.has(id) ? total : total + length, 0)
}

/**
 * The lengths of an index's chunks by their ids. Behind a head of 48 bytes and one of 16 it has, for each chunk, the offset at which it ends
 * and its id (casync's src/caformat.h); a zero is where the table ends.
 */
function chunksIn(index: Buffer): Map<string, number> {
  const chunks = new Map<string, number>()
  let start = 0
  for (let at = 64; index.readBigUInt64LE(at) !== 0n; at += 40) {
    const end = Number(index.readBigUInt64LE(at))
    chunks.set(index.toString('hex', at + 8, at + 40), end - start)
    start = end
  }
  return chunks
}
