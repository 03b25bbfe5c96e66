import type { Stream } from '@libp2p/interface'
import { describe, expect, it, vi } from 'vitest'
import type { ImageMetadata } from '../../src/image/metadata.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { MAX_MANIFEST_BYTES } from '../../src/limits.ts'
import { silentLogger } from '../../src/log.ts'
import { encodeHeader } from '../../src/p2p/header.ts'
import { fetchMetadata } from '../../src/p2p/meta/client.ts'
import { metaHandler, type MetaHandlerComponents } from '../../src/p2p/meta/handler.ts'
import { Slots } from '../../src/p2p/slots.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { expectFailure } from '../helpers/failure.ts'
import { connectTo, served, streamPair } from '../helpers/stream-pair.ts'

const HASH = NarHash.fromBytes(rangeOf(0, 32))
const OTHER = NarHash.fromBytes(rangeOf(1, 32))
const STORE_PATH = '/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello'
const METADATA: ImageMetadata = {
  narHash: HASH, narSize: 123, storePath: STORE_PATH, references: Array.from({ length: 3000 }, (_, n) => `${STORE_PATH}-${n}`),
  deriver: `${STORE_PATH}.drv`, ca: 'fixed:r:sha256:0', signatures: ['key-1:AAAA'], name: 'hello', manifestDigest: 'ab'.repeat(32),
}

function handlerOf(components: Partial<MetaHandlerComponents> = {}): (stream: Stream) => Promise<void> {
  const source = { describe: (narHash: NarHash) => Promise.resolve(narHash.equals(HASH) ? { verified: true, metadata: METADATA, manifest: rangeOf(0, 200_000) } : undefined) }
  return served(metaHandler({
    source, slots: new Slots(1), logger: silentLogger, stopping: new AbortController().signal, trafficOf: () => ({ received: 0, sent: 0 }), ...components,
  }, { stallMs: 50, headerTimeoutMs: 60 }))
}

async function expectClosed(...streams: Stream[]): Promise<void> {
  for (const stream of streams) await vi.waitFor(() => { expect(['closed', 'reset', 'aborted']).toContain(stream.status) })
}

describe('both ends', () => {
  it('move metadata and manifest as they are', async () => {
    const { opener, streams } = connectTo(handlerOf())
    const answer = await fetchMetadata(opener, 'peer', HASH)
    expect(answer).toEqual({ status: 'ok', verified: true, metadata: METADATA, manifest: Buffer.from(rangeOf(0, 200_000)) })
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
  })

  it('move an image without a manifest', async () => {
    const metadata = { ...METADATA, manifestDigest: null }
    const { opener } = connectTo(handlerOf({ source: { describe: () => Promise.resolve({ verified: false, metadata, manifest: new Uint8Array(0) }) } }))
    expect(await fetchMetadata(opener, 'peer', HASH)).toEqual({ status: 'ok', verified: false, metadata, manifest: Buffer.alloc(0) })
  })

  it('tell peers nothing of an image but its metadata', async () => {
    const row = { ...METADATA, note: 'a secret of this host' }
    const { opener } = connectTo(handlerOf({ source: { describe: () => Promise.resolve({ verified: true, metadata: row, manifest: new Uint8Array(0) }) } }))
    expect(await fetchMetadata(opener, 'peer', HASH)).toMatchObject({ status: 'ok', metadata: METADATA })
  })

  it('answer not-found and busy', async () => {
    const slots = new Slots(1)
    const { opener, streams } = connectTo(handlerOf({ slots }))
    expect(await fetchMetadata(opener, 'peer', OTHER)).toEqual({ status: 'not-found' })
    const release = slots.take()
    expect(await fetchMetadata(opener, 'peer', HASH)).toEqual({ status: 'busy' })
    release?.()
    expect(await fetchMetadata(opener, 'peer', HASH)).toMatchObject({ status: 'ok' })
    await expectClosed(...streams.flatMap(({ near, far }) => [near, far]))
  })

  it('fail where the source fails, and give the slot back', async () => {
    const slots = new Slots(1)
    const { opener } = connectTo(handlerOf({ slots, source: { describe: () => Promise.reject(new Error('the disk is gone')) } }))
    await expectFailure(fetchMetadata(opener, 'peer', HASH), 'peer-failed', /reset/)
    expect(slots.take()).toBeDefined()
  })
})

describe('a peer that answers wrongly gives peer-failed', () => {
  const json = (value: object): Uint8Array => Buffer.from(JSON.stringify(value))
  const good = json(METADATA)
  const ok = (metadataLength: number, manifestLength: number): Uint8Array => encodeHeader({ version: 1, status: 'ok', verified: true, metadataLength, manifestLength })

  it.each<[string, RegExp, (stream: Stream) => void | Promise<void>]>([
    ['metadata of another image', /found that of/, async stream => {
      const other = json({ ...METADATA, narHash: OTHER.toSri() })
      stream.send(ok(other.length, 0))
      stream.send(other)
      await stream.close()
    }],
    ['metadata with an unknown field', /Unrecognized key/, stream => { const bad = json({ ...METADATA, more: 1 }); stream.send(ok(bad.length, 0)); stream.send(bad) }],
    ['metadata that is no JSON', /JSON/, stream => { stream.send(ok(2, 0)); stream.send(Uint8Array.of(0x7b, 0x7b)) }],
    ['a manifest that is cut short', /found the end of the stream after 5 bytes, needed 10/, async stream => {
      stream.send(ok(good.length, 10))
      stream.send(good)
      stream.send(rangeOf(0, 5))
      await stream.close()
    }],
    ['bytes after the manifest', /bytes after the last one/, async stream => { stream.send(ok(good.length, 1)); stream.send(good); stream.send(rangeOf(0, 2)); await stream.close() }],
    ['a manifest over the limit', /at manifestLength/, stream => { stream.send(ok(good.length, MAX_MANIFEST_BYTES + 1)) }],
    ['metadata over the limit', /at metadataLength/, stream => { stream.send(ok(2 ** 21, 0)) }],
    ['silence in the manifest', /no byte of the body for 50 ms/, stream => { stream.send(ok(good.length, MAX_MANIFEST_BYTES)); stream.send(good) }],
    ['a reset', /reset/, stream => { stream.abort(new Error('no')) }],
  ])('%s', async (_what, text, server) => {
    const { opener, streams } = connectTo(server)
    await expectFailure(fetchMetadata(opener, 'peer', HASH, { stallMs: 50, headerTimeoutMs: 60 }), 'peer-failed', text)
    await expectClosed(...streams.map(({ near }) => near))
  })

  it('but not one that is slow and moves', async () => {
    const { opener } = connectTo(async stream => {
      stream.send(ok(good.length, 20))
      stream.send(good)
      for (let index = 0; index < 20; index++) {
        await new Promise(resolve => { setTimeout(resolve, 20) })
        stream.send(rangeOf(index, 1))
      }
      await stream.close()
    })
    expect(await fetchMetadata(opener, 'peer', HASH, { stallMs: 250, headerTimeoutMs: 250 })).toMatchObject({ status: 'ok', manifest: Buffer.from(rangeOf(0, 20)) })
  })
})

describe('an asker that stalls', () => {
  it('is cut off, whatever the size of the manifest', async () => {
    const { near, far } = await streamPair()
    const manifest = new Uint8Array(20 * 1024 * 1024)
    const serving = handlerOf({ source: { describe: () => Promise.resolve({ verified: true, metadata: METADATA, manifest }) } })(far)
    near.pause()
    near.send(encodeHeader({ version: 1, narHash: HASH.toSri() }))
    await near.close()
    await serving
    expect(far.status).toBe('aborted')
  })
})
