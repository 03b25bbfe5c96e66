import type { z } from 'zod'
import { metadataSchema, type ImageMetadata } from '../../image/metadata.ts'
import { MANIFEST_IN_FLIGHT_BYTES } from '../../limits.ts'
import { sendBody } from '../body.ts'
import { sendHeader } from '../header.ts'
import type { ImageDescription, ImageSource, Refusal, StreamHandler } from '../protocol.ts'
import { type Exchange, serve, type ServeComponents, type ServeInit } from '../serve.ts'
import type { Slots } from '../slots.ts'
import { metaRequest } from './messages.ts'

export interface MetaHandlerComponents extends ServeComponents {
  readonly source: Pick<ImageSource, 'describe'>
  readonly slots: Slots
}

/** Serves `/narvik/meta/1.0.0`: the metadata and the manifest of an image that this host holds. */
export function metaHandler({ source, slots, ...components }: MetaHandlerComponents, init: ServeInit = {}): StreamHandler {
  return serve(components, init, metaRequest, async exchange => {
    // Before a place is taken, so that one peer can't take them all.
    using _held = await exchange.traffic.flight?.take(MANIFEST_IN_FLIGHT_BYTES, exchange.watchdog.signal)
    const release = slots.take()
    if (release === undefined) {
      await refuse(exchange, 'busy')
      return
    }
    try {
      exchange.concerns(exchange.request.narHash)
      const described = await source.describe(exchange.request.narHash)
      if (described === undefined) await refuse(exchange, 'not-found')
      else await sendDescription(exchange, described)
    } finally {
      release()
    }
  })
}

type MetaExchange = Exchange<z.output<typeof metaRequest>>

async function sendDescription(exchange: MetaExchange, described: ImageDescription): Promise<void> {
  const { verified, manifest } = described
  const metadata = encodeMetadata(described.metadata)
  const header = { version: 1, status: 'ok', verified, metadataLength: metadata.byteLength, manifestLength: manifest.byteLength }
  await sendHeader(exchange.stream, header, exchange.watchdog)
  await sendBody(exchange, metadata)
  await sendBody(exchange, manifest)
}

/** Only the fields that the schema knows: a source's objects may carry more, which would not be for peers. */
function encodeMetadata(metadata: ImageMetadata): Uint8Array {
  const known = Object.fromEntries(Object.keys(metadataSchema.shape).map(field => [field, metadata[field as keyof ImageMetadata]]))
  return Buffer.from(JSON.stringify(known), 'utf8')
}

async function refuse({ stream, watchdog }: MetaExchange, status: Refusal): Promise<void> {
  await sendHeader(stream, { version: 1, status }, watchdog)
}
