import { z } from 'zod'

const run = z.strictObject({
  peerId: z.string().max(128),
  offset: z.int().min(0),
  length: z.int().min(1),
  digest: z.string().length(64),
})
const receiveProgress = z.strictObject({
  manifestDigest: z.string().length(64),
  voucher: z.string().max(128).nullable(),
  recordBy: z.string().max(128).nullable(),
  offset: z.int().min(0),
  runs: z.array(run),
})

/** Bytes that one peer sent in one go: `digest` is the BLAKE3 of NAR bytes [offset, offset + length) as they came. */
export type Run = z.infer<typeof run>

/** How far an image has come; what the progress file in quarantine holds. Every byte before `offset` is on disk. */
export type ReceiveProgress = z.infer<typeof receiveProgress>

/** Reads a progress file; undefined, so that the image starts from its first byte, where there is none to rely on. */
export function readProgress(content: unknown): ReceiveProgress | undefined {
  return receiveProgress.safeParse(content).data
}

/** Bytes that each peer sent, in the order of their first one. */
export function bytesPerPeer(runs: readonly Run[]): Map<string, number> {
  const bytes = new Map<string, number>()
  for (const { peerId, length } of runs) bytes.set(peerId, (bytes.get(peerId) ?? 0) + length)
  return bytes
}
