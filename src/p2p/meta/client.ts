import type { z } from 'zod'
import { NarvikError } from '../../errors.ts'
import { type ImageMetadata, metadataSchema } from '../../image/metadata.ts'
import type { NarHash } from '../../image/nar-hash.ts'
import { type Answer, ask, type AskOptions } from '../ask.ts'
import { expectEnd, readExactly } from '../header.ts'
import type { Refusal, StreamOpener } from '../protocol.ts'
import { META_PROTOCOL, metaReply } from './messages.ts'

export type MetaAnswer =
  /** `verified`: the peer says it of an image that it has proven; otherwise it passes on what it was told. */
  | { readonly status: 'ok', readonly verified: boolean, readonly metadata: ImageMetadata, readonly manifest: Uint8Array }
  | { readonly status: Refusal }

/**
 * Asks a peer for an image's metadata and manifest. Both are what the peer says: of the right form and of this NAR hash, and not proven.
 * @throws NarvikError `peer-failed` where the peer can't be reached or breaks the protocol.
 */
export async function fetchMetadata(opener: StreamOpener, peerId: string, narHash: NarHash, options: AskOptions = {}): Promise<MetaAnswer> {
  const action = `receive the metadata of ${narHash.toNix32()} from peer ${peerId}`
  const request = { version: 1, narHash: narHash.toSri() }
  const answer = await ask(opener, { peerId, protocol: META_PROTOCOL, request, schema: metaReply, action }, options)
  if (answer === 'busy') return { status: 'busy' }
  try {
    const result = await readReply(answer, narHash)
    answer.end()
    return result
  } catch (error) {
    throw answer.fail(error)
  }
}

async function readReply(answer: Answer<z.output<typeof metaReply>>, narHash: NarHash): Promise<MetaAnswer> {
  const { reply, reader, watchdog, traffic } = answer
  if (reply.status !== 'ok') {
    await watchdog.wait(expectEnd(reader), 'end of the stream')
    return { status: reply.status }
  }
  const metadata = parseMetadata(await readExactly(reader, reply.metadataLength, watchdog, traffic), narHash)
  const manifest = await readExactly(reader, reply.manifestLength, watchdog, traffic)
  await watchdog.wait(expectEnd(reader), 'end of the stream')
  return { status: 'ok', verified: reply.verified, metadata, manifest }
}

function parseMetadata(bytes: Uint8Array, narHash: NarHash): ImageMetadata {
  const metadata = metadataSchema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)))
  if (metadata.narHash.equals(narHash)) return metadata
  throw new NarvikError('peer-failed', `Cannot take the metadata: found that of ${metadata.narHash.toNix32()}, needed that of ${narHash.toNix32()}`)
}
