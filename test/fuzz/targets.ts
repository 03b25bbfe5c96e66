import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { ROUTES } from '../../src/control/routes.ts'
import { ChunkListBuilder } from '../../src/image/chunk-list.ts'
import { ListingBuilder } from '../../src/image/listing.ts'
import { encodeManifest, decodeManifest } from '../../src/image/manifest.ts'
import { metadataSchema } from '../../src/image/metadata.ts'
import { checkNameTimes, readNameRecord, writeNameRecord } from '../../src/image/name-record.ts'
import { parseRef, refText } from '../../src/image/ref.ts'
import { Layout } from '../../src/nar/layout.ts'
import { parseNar } from '../../src/nar/parse.ts'
import { parseContentAddress, formatContentAddress } from '../../src/nix/content-address.ts'
import { formatNarInfo, parseNarInfo } from '../../src/nix/narinfo.ts'
import { parsePathInfo } from '../../src/nix/path-info.ts'
import { formatPublicKey, parsePublicKey, parseSecretKey, tryParseSignature } from '../../src/nix/signature.ts'
import { parseStorePath } from '../../src/nix/store-path.ts'
import { WireReader } from '../../src/nix/worker/wire.ts'
import { type AskerMessage, decodeAsker, decodeHolder, encodeAsker, encodeHolder, MESSAGE_HEAD_BYTES, TYPE } from '../../src/p2p/chunks/messages.ts'
import { readChunksHead } from '../../src/p2p/chunks/frames.ts'
import { fleetKeys, keyOfKnock } from '../../src/p2p/fleet.ts'
import { recordKey, signRecord, verifyRecord } from '../../src/p2p/record.ts'
import { checkProof } from '../../src/p2p/tls/proof.ts'
import { hintFor, secretsOf, secretsOfHint } from '../../src/p2p/tls/keys.ts'
import { CHUNKS, DIGEST, eachOurs, HASH, jsonOf, METADATA, ours, same, shown, SRI, STORE_PATH, text, uint64, utf8 } from './decoding.ts'
import type { Target } from './engine.ts'
import { config, progress, secretFiles } from './files.ts'
import { answers, headers, pieces, readerOf, readFrames } from './streams.ts'

const NOW = 1_700_000_000_000

/** Every decoder of bytes that come from a peer, a file, a user or Nix. */
export const TARGETS: Readonly<Record<string, Target>> = {
  'headers': headers(),
  'chunks-asker': {
    seeds: () => [{ kind: 'want', id: 1, runs: [{ first: 0, count: 3 }, { first: 9, count: 1 }], choice: undefined }, { kind: 'want', id: 2, runs: [{ first: 5, count: 900 }], choice: 70_000 }, { kind: 'cancel', id: 1, runs: [] }].map(message => framed(encodeAsker(message as AskerMessage))),
    run: ours(([type = 0, ...body]) => {
      const message = decodeAsker(type, Uint8Array.from(body), CHUNKS)
      const again = framed(encodeAsker(message))
      same(decodeAsker(again[0] ?? 0, again.subarray(1), CHUNKS), message)
    }),
  },
  'chunks-holder': {
    seeds: () => [
      ...([{ kind: 'have', runs: [{ first: 1, count: 2 }] }, { kind: 'chose', id: 7, runs: [{ first: 0, count: CHUNKS }] }, { kind: 'end', id: 300, status: 'busy' }, { kind: 'ready' }] as const).map(message => framed(encodeHolder(message))),
      Buffer.concat([Buffer.of(21), Buffer.from(JSON.stringify([peerIdOf(1), peerIdOf(2)]))]),
    ],
    run: ours(([type = 0, ...body]) => {
      const message = decodeHolder(type, Uint8Array.from(body), CHUNKS)
      if (message.kind === 'peers') return
      const again = framed(encodeHolder(message))
      same(decodeHolder(again[0] ?? 0, again.subarray(1), CHUNKS), message)
    }),
  },
  'chunks-head': { seeds: () => [Buffer.of(1, 0, 1, 99), Buffer.of(0x80, 1, 5, 2)], run: ours(async bytes => { await readChunksHead(readerOf(bytes), bytes.length) }) },
  'manifest': {
    seeds: () => manifests(),
    most: 20_000,
    run: ours(bytes => {
      const { listing, chunks } = decodeManifest(bytes)
      if (Buffer.compare(encodeManifest(listing, chunks), bytes) !== 0) throw new Error('two manifests of one meaning')
      const layout = Layout.describedBy({ listing, chunks })
      for (const offset of [0, Math.floor(layout.narSize / 2), layout.narSize - 1]) if (layout.entryAt(offset) >= listing.count) throw new Error('an entry that is none')
    }),
  },
  'image-record': {
    seeds: () => RECORDS,
    // As it is, and with a signature that is right, so that what is behind it is reached.
    run: eachOurs([
      async bytes => { await verifyRecord(RECORD_KEY, bytes, NOW) },
      async bytes => {
        const payload = bytes.subarray(64)
        const signature = await OWNER.sign(Buffer.concat([Buffer.from('narvik image record 1\0'), RECORD_KEY, payload]))
        await verifyRecord(RECORD_KEY, Buffer.concat([signature, payload]), NOW)
      },
    ]),
  },
  'record-key': { seeds: () => [RECORD_KEY], run: ours(async bytes => { await verifyRecord(bytes, RECORDS[0] ?? new Uint8Array(0), NOW) }) },
  'name-record': {
    seeds: () => [writeNameRecord({ version: 1, publisher: `fleet-1:${Buffer.alloc(32, 5).toString('base64')}`, name: 'web', narHash: HASH, seq: 3, publishedAt: NOW, expires: NOW + 60_000 }, () => new Uint8Array(64))],
    run: ours(bytes => {
      const { record, key } = readNameRecord(bytes)
      checkNameTimes(record, NOW)
      const again = readNameRecord(writeNameRecord(record, () => new Uint8Array(64)))
      same({ ...again.record, key: again.key }, { ...record, key })
    }),
  },
  'nar': { seeds: () => nars(), run: ours(checkNar) },
  'narinfo': {
    seeds: () => [text(`StorePath: ${STORE_PATH}\nURL: nar/x.nar.xz\nCompression: xz\nFileHash: sha256:${HASH.toNix32()}\nFileSize: 9\nNarHash: sha256:${HASH.toNix32()}\nNarSize: 123\nReferences: ${STORE_PATH.slice(11)}\nDeriver: ${STORE_PATH.slice(11)}.drv\nSig: key-1:${Buffer.alloc(64).toString('base64')}\nCA: fixed:r:sha256:${HASH.toNix32()}\n`)],
    run: ours(bytes => {
      const info = parseNarInfo(utf8(bytes))
      same(parseNarInfo(formatNarInfo(info)), info)
    }),
  },
  'path-info': {
    seeds: () => [
      text(JSON.stringify({ [STORE_PATH]: { narHash: SRI, narSize: 12, references: [STORE_PATH], deriver: `${STORE_PATH}.drv`, ca: null, signatures: [], registrationTime: 1 } })),
      text(JSON.stringify([{ path: STORE_PATH, valid: true, narHash: SRI, narSize: 12, references: [] }, { path: STORE_PATH, valid: false }])),
    ],
    run: ours(bytes => { parsePathInfo(utf8(bytes)) }),
  },
  'nix-texts': {
    seeds: () => [STORE_PATH, `key-1:${Buffer.alloc(32, 7).toString('base64')}`, `key-1:${Buffer.alloc(64, 7).toString('base64')}`, `fixed:r:sha256:${HASH.toNix32()}`, `text:sha256:${HASH.toNix32()}`].map(text),
    run: eachOurs([
      bytes => { parseStorePath(utf8(bytes)) },
      bytes => { same(formatPublicKey(parsePublicKey(formatPublicKey(parsePublicKey(utf8(bytes))))), formatPublicKey(parsePublicKey(utf8(bytes)))) },
      bytes => { parseSecretKey(utf8(bytes)) },
      bytes => { tryParseSignature(utf8(bytes)) },
      bytes => { same(parseContentAddress(formatContentAddress(parseContentAddress(utf8(bytes)))), parseContentAddress(utf8(bytes))) },
    ]),
  },
  'nix-wire': {
    seeds: () => [Buffer.concat([Buffer.of(1, 0, 0, 0, 0, 0, 0, 0), Buffer.of(2, 0, 0, 0, 0, 0, 0, 0), Buffer.from('ab\0\0\0\0\0\0'), Buffer.of(0, 0, 0, 0, 0, 0, 0, 0)])],
    run: ours(async bytes => {
      const reader = new WireReader(pieces(bytes))
      for (;;) { await reader.bool(); await reader.text(); await reader.texts() }
    }),
  },
  'ref': {
    seeds: () => [SRI, STORE_PATH, 'web-1', 'fleet-1/web', `sha256:${HASH.toNix32()}`, HASH.toHex(), HASH.toNix32()].map(text),
    run: ours(bytes => {
      const ref = parseRef(utf8(bytes))
      same(parseRef(refText(ref)), ref)
    }),
  },
  'config': config(),
  'control': {
    seeds: () => [{ path: '/srv/a', name: 'web', closure: true }, { ref: SRI, timeoutSeconds: 3, priority: 'high' }, { all: true }, { ref: 'web', dest: '/tmp/x' }, { ref: STORE_PATH, private: true }, { ref: 'web', position: 2 }, { freeBytes: 7, dryRun: true }, { record: 'AAAA' }].map(fields => Buffer.concat([Buffer.of(1), text(JSON.stringify(fields))])),
    run: ours(([route = 0, ...body]) => { ROUTES[route % ROUTES.length]?.prepare(jsonOf(Uint8Array.from(body))) }),
  },
  'progress': progress(),
  'secret-files': secretFiles(),
  'frames': {
    seeds: () => [
      Buffer.concat([encodeHolder({ kind: 'have', runs: [{ first: 1, count: 2 }] }), encodeHolder({ kind: 'ready' })]),
      Buffer.concat([encodeHolder({ kind: 'end', id: 300, status: 'busy' }), Buffer.of(TYPE.chunks, 4, 0, 0, 0, 1, 0, 1, 99)]),
    ],
    run: ours(readFrames),
  },
  'answers': answers(),
  'metadata': {
    seeds: () => [text(JSON.stringify(METADATA)), text(JSON.stringify({ ...METADATA, storePath: STORE_PATH, references: [STORE_PATH], deriver: `${STORE_PATH}.drv`, signatures: ['key-1:AAAA'], name: 'web', manifestDigest: DIGEST }))],
    run: ours(bytes => {
      const { success, data } = metadataSchema.safeParse(jsonOf(bytes))
      if (success) same(metadataSchema.parse(JSON.parse(shown(data))), data)
    }),
  },
  'handshake': {
    seeds: () => [Buffer.alloc(96, 3), Buffer.from(hintFor(secretsOf(FLEET.dial)), 'latin1'), Buffer.alloc(66, 1)],
    run: ours(async bytes => {
      if (keyOfKnock(FLEET.accept, bytes.subarray(0, 32), bytes.subarray(32)) !== undefined) throw new Error('a knock by nobody')
      secretsOfHint(FLEET, Buffer.from(bytes).toString('latin1'))
      await checkProof(bytes, { role: 'dialler', binding: Buffer.alloc(32) })
      throw new Error('a proof by nobody')
    }),
  },
}

const FLEET = fleetKeys(Uint8Array.from({ length: 32 }, (_, index) => 255 - index))
const OWNER = await generateKeyPairFromSeed('Ed25519', new Uint8Array(32).fill(9))
const RECORD_KEY = Uint8Array.from(recordKey(peerIdFromPrivateKey(OWNER).toString(), HASH))
const COMMON = { version: 1, narHash: HASH, seq: NOW, expires: NOW + 60_000 } as const
const RECORDS = [
  await signRecord(RECORD_KEY, { ...COMMON, status: 'held', narSize: 12, manifestDigest: DIGEST }, OWNER),
  await signRecord(RECORD_KEY, { ...COMMON, status: 'withdrawn' }, OWNER),
]

function peerIdOf(seed: number): string {
  return `12D3KooW${'QPZabcdefghijkmnopqrstuvwxyz'.repeat(2).slice(seed, seed + 44)}`
}

/** The body of a message behind its type, without the length between them. */
function framed(message: Uint8Array): Uint8Array {
  return Buffer.concat([message.subarray(0, 1), message.subarray(MESSAGE_HEAD_BYTES)])
}

function manifests(): Uint8Array[] {
  return [0, 1, 200_000].map(size => {
    const listing = new ListingBuilder()
    listing.directory(new Uint8Array(0))
    listing.regular(Buffer.from('disk'), size, size === 1)
    listing.symlink(Buffer.from('link'), Buffer.from('disk'))
    listing.leave()
    const built = listing.build()
    const chunks = new ChunkListBuilder()
    for (let left = Layout.of(built).narSize; left > 0; left -= 65_536) chunks.add(Math.min(left, 65_536), new Uint8Array(32).fill(7))
    return encodeManifest(built, chunks.build())
  })
}

function str(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1')
  return Buffer.concat([uint64(bytes.length), bytes, Buffer.alloc((8 - bytes.length % 8) % 8)])
}

const tokens = (...parts: readonly string[]): Buffer => Buffer.concat(parts.map(str))

function nars(): Uint8Array[] {
  const file = tokens('(', 'type', 'regular', 'executable', '', 'contents', 'hello', ')')
  const link = tokens('(', 'type', 'symlink', 'target', '/etc/passwd', ')')
  const entry = (name: string, node: Buffer): Buffer => Buffer.concat([tokens('entry', '(', 'name', name, 'node'), node, tokens(')')])
  const directory = Buffer.concat([tokens('(', 'type', 'directory'), entry('a', file), entry('b', link), tokens(')')])
  return [file, link, directory].map(node => Buffer.concat([str('nix-archive-1'), node]))
}

/** What is taken for a NAR is what is written of the same tree, byte for byte. */
async function checkNar(bytes: Uint8Array): Promise<void> {
  const written: Uint8Array[] = [str('nix-archive-1')]
  let depth = 0
  let missing = 0
  let size = 0
  const open = (name: Uint8Array, type: string): void => {
    if (depth > 0) written.push(tokens('entry', '(', 'name'), str(Buffer.from(name).toString('latin1')), tokens('node'))
    written.push(tokens('(', 'type', type))
  }
  const close = (): void => { written.push(depth > 0 ? tokens(')', ')') : tokens(')')) }
  const endContents = (): void => {
    written.push(Buffer.alloc((8 - size % 8) % 8))
    close()
  }
  await parseNar(pieces(bytes), {
    directory: name => { open(name, 'directory'); depth += 1 },
    leave: () => { depth -= 1; close() },
    regular: (name, length, executable) => {
      open(name, 'regular')
      if (executable) written.push(tokens('executable', ''))
      written.push(tokens('contents'), uint64(length))
      missing = length
      size = length
      if (length === 0) endContents()
    },
    contents: part => {
      written.push(Uint8Array.from(part))
      missing -= part.length
      if (missing === 0) endContents()
    },
    symlink: (name, target) => { open(name, 'symlink'); written.push(tokens('target'), str(Buffer.from(target).toString('latin1'))); close() },
  })
  if (Buffer.compare(Buffer.concat(written), bytes) !== 0) throw new Error('found a NAR that is not the one that is written of the same tree')
}
