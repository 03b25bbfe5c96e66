import type { z } from 'zod'
import { chunksHello, chunksWelcome, decodeHolder, TYPE } from '../../src/p2p/chunks/messages.ts'
import { readChunksHead, readHead } from '../../src/p2p/chunks/frames.ts'
import { fetchClosurePaths, fetchNars } from '../../src/p2p/closure/client.ts'
import { closureRequest, narsReply, pathMessage, pathsReply } from '../../src/p2p/closure/messages.ts'
import { encodeHeader, expectEnd, readExactly, readHeader } from '../../src/p2p/header.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { metaReply, metaRequest } from '../../src/p2p/meta/messages.ts'
import { fetchNar } from '../../src/p2p/nar/client.ts'
import { narReply, narRequest } from '../../src/p2p/nar/messages.ts'
import type { OpenStream, StreamOpener } from '../../src/p2p/protocol.ts'
import type { StreamReader } from '../../src/p2p/stream-reader.ts'
import type { Watchdog } from '../../src/p2p/watchdog.ts'
import { CHUNKS, DIGEST, HASH, METADATA, ours, SRI, STORE_PATH, text, uint64 } from './decoding.ts'
import type { Target } from './engine.ts'

/** A stream that has brought some bytes and its end, as far as decoders look at one. */
export function readerOf(bytes: Uint8Array): StreamReader {
  let at = 0
  const takeNow = (max: number): Uint8Array | undefined => {
    const part = bytes.subarray(at, at + Math.min(max, 7))
    at += part.length
    return part.length === 0 ? undefined : part
  }
  const reader: unknown = { takeNow, take: (max: number) => Promise.resolve(takeNow(max) ?? null) }
  return reader as StreamReader
}

export async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 7) yield await Promise.resolve(bytes.subarray(at, at + 7))
}

/** The first byte says of which protocol a header is read. */
export function headers(): Target {
  const schemas: readonly (readonly [z.ZodType, unknown])[] = [
    [metaRequest, { version: 1, narHash: SRI }], [metaReply, { version: 1, status: 'ok', verified: true, metadataLength: 2, manifestLength: 0 }], [narRequest, { version: 1, narHash: SRI, offset: 0, length: 9 }],
    [narReply, { version: 1, status: 'ok', length: 9 }], [closureRequest, { version: 1, want: 'nars', narHashes: [SRI] }], [pathsReply, { version: 1, status: 'ok', count: 3 }], [narsReply, { version: 1, status: 'busy' }],
    [pathMessage, { narHash: SRI, narSize: 12, storePath: STORE_PATH, references: [0, 1], deriver: null, ca: null, signatures: ['key-1:AAAA'], manifestDigest: DIGEST }],
    [chunksHello, { version: 1, narHash: SRI, manifestDigest: DIGEST }], [chunksWelcome, { version: 1, status: 'busy', peers: [] }],
  ]
  return {
    seeds: () => schemas.map(([, value], index) => Buffer.concat([Buffer.of(index), encodeHeader(value)])),
    run: ours(async bytes => {
      const [schema] = schemas[(bytes[0] ?? 0) % schemas.length] ?? [metaRequest]
      const reader = readerOf(bytes.subarray(1))
      await readHeader(reader, schema)
      await expectEnd(reader)
    }),
  }
}

/** The messages of a session, as the asking end reads them. */
export async function readFrames(bytes: Uint8Array): Promise<void> {
  const reader = readerOf(bytes)
  const watchdog = { wait: (step: Promise<unknown>) => step } as unknown as Watchdog
  for (let head = await readHead(reader, watchdog); head !== null; head = await readHead(reader, watchdog)) {
    if (head.type === TYPE.chunks) {
      const { left } = await readChunksHead(reader, head.length)
      if (left < 0) throw new Error('more numbers than there are bytes')
      await readExactly(reader, left)
    } else decodeHolder(head.type, await readExactly(reader, head.length), CHUNKS)
  }
}

/** What peers answer, read to its end by those who ask; the first byte says what was asked. */
export function answers(): Target {
  const path = { narHash: SRI, narSize: 12, storePath: STORE_PATH, references: [0], deriver: null, ca: null, signatures: [], manifestDigest: DIGEST }
  const asks: readonly ((opener: StreamOpener) => Promise<void>)[] = [
    async opener => { await fetchMetadata(opener, 'peer', HASH) },
    async opener => {
      const answer = await fetchNar(opener, 'peer', HASH, 0, 9)
      let taken = 0
      if (answer.status === 'ok') for await (const part of answer.body) taken += part.length
      if (answer.status === 'ok' && taken !== 9) throw new Error(`found ${taken} bytes of a body, needed 9`)
    },
    async opener => {
      const answer = await fetchClosurePaths(opener, 'peer', HASH)
      if (answer.status === 'ok' && answer.paths.at(-1)?.narHash.equals(HASH) !== true) throw new Error('a closure of something else')
    },
    async opener => {
      const answer = await fetchNars(opener, 'peer', [{ narHash: HASH, narSize: 9 }, { narHash: HASH, narSize: 1 }])
      if (answer.status !== 'ok') return
      for await (const nar of answer.nars) if (nar !== null) for await (const part of nar) if (part.length > 9) throw new Error('more than a NAR has')
    },
  ]
  return {
    seeds: () => [
      [encodeHeader({ version: 1, status: 'ok', verified: true, metadataLength: text(JSON.stringify(METADATA)).length, manifestLength: 2 }), text(JSON.stringify(METADATA)), Buffer.of(1, 2)],
      [encodeHeader({ version: 1, status: 'ok', length: 9 }), Buffer.alloc(9)],
      [encodeHeader({ version: 1, status: 'ok', count: 1 }), encodeHeader(path)],
      [encodeHeader({ version: 1, status: 'ok' }), uint64(9), Buffer.alloc(9), uint64(0)],
    ].map((parts, index) => Buffer.concat([Buffer.of(index), ...parts])),
    run: ours(async ([which = 0, ...bytes]) => { await asks[which % asks.length]?.(openerTo(Uint8Array.from(bytes))) }),
  }
}

/** A peer that answers with these bytes and its end, whatever it is asked. */
function openerTo(bytes: Uint8Array): StreamOpener {
  const events = new EventTarget()
  const say = (type: string, fields: object = {}): void => { events.dispatchEvent(Object.assign(new Event(type), fields)) }
  const stream = Object.assign(events, {
    status: 'open', readStatus: 'readable', writeStatus: 'writable', readableEnded: false, timeline: {},
    send: () => true, close: () => Promise.resolve(), pause: () => undefined, resume: () => undefined,
    abort: (error: Error) => { say('close', { error }) },
  })
  const traffic = { received: 0, sent: 0 }
  const open = (): Promise<OpenStream> => {
    setImmediate(() => {
      if (bytes.length > 0) say('message', { data: bytes })
      stream.readableEnded = true
      say('end')
    })
    return Promise.resolve({ stream: stream as unknown as OpenStream['stream'], signal: new AbortController().signal, traffic })
  }
  return { open }
}
