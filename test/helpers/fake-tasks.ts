import { NarvikError } from '../../src/errors.ts'
import { refText, type Ref } from '../../src/image/ref.ts'
import type { BanJson, CollectionJson, HostEvent, ImageDetailsJson, ImageJson, LongWork, PeerJson, Progress, PublishedNameJson, QueueJson, StatusJson, Tasks, TransferJson, UsageJson, VerifyReportJson } from '../../src/control/api.ts'

export const GOOD_HASH = 'sha256-R0mw4rbCKZzQIFCXXcyT7hnTqxo5Dcn3FJdCHk0oGyE='
export const BAD_HASH = 'sha256-MOSTHkYLShLAmoxyBlUtGn3v8P+ZpTlWTnNjvPZ1a1c='
const STORE_PATH = '/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'
export const PEER = '12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf'

export const goodImage: ImageJson = {
  narHash: GOOD_HASH,
  narSize: 1_288_490_189,
  name: 'web-1',
  state: 'verified',
  path: '/var/lib/narvik/images/0kd4rlz8zqw7h1ia1xdsvn8a38i8mlq8x84m82qqr9w1jvr5xaa9',
  storePath: null,
  references: [],
  deriver: null,
  ca: null,
  signatures: [], vouchedBy: null, private: false,
  source: 'import',
  createdAt: '2026-03-01T12:00:00.000Z',
  verifiedAt: '2026-03-01T12:00:05.000Z',
  provenAt: '2026-03-01T12:00:05.000Z',
  usedAt: '2026-03-01T12:00:05.000Z',
  pinned: false,
  reason: null,
  reasonCode: null,
  note: null,
}

export const badImage: ImageJson = {
  ...goodImage,
  narHash: BAD_HASH,
  narSize: null,
  name: null,
  state: 'rejected',
  path: null,
  source: 'fetch',
  verifiedAt: null,
  provenAt: null,
  reason: 'the NAR hash of the tree is another',
  reasonCode: 'wrong-nar-hash',
}

const stages = [
  { stage: 'shape', verdict: 'pass', detail: 'the tree has the shape of the manifest', milliseconds: 1 },
  { stage: 'nar-hash', verdict: 'fail', detail: 'the NAR hash of the tree is another', expected: BAD_HASH, found: GOOD_HASH, milliseconds: 70 },
] as const

const badDetails: ImageDetailsJson = {
  ...badImage,
  otherStorePaths: [],
  publishedNames: [],
  closure: null,
  journal: [
    { at: '2026-03-01T12:00:00.000Z', from: null, to: 'wanted', event: 'create', reason: 'asked for', code: 'asked-for', evidence: null },
    {
      at: '2026-03-01T12:00:09.000Z',
      from: 'quarantined',
      to: 'rejected',
      event: 'fail',
      reason: 'the NAR hash of the tree is another',
      code: 'wrong-nar-hash',
      evidence: {
        verdict: { verdict: 'fail', stages, reason: 'the NAR hash of the tree is another' },
        peers: [{ peerId: PEER, bytes: 1_288_490_189, outcome: 'lied', detail: 'the only peer that sent' }],
      },
    },
  ],
}

export const goodStatus: StatusJson = {
  peerId: PEER,
  addresses: [`/ip4/127.0.0.1/tcp/4650/p2p/${PEER}`],
  version: '0.1.0',
  uptimeSeconds: 3725,
  peers: 1,
  dhtPeers: 1,
  images: { wanted: 0, receiving: 1, quarantined: 0, verified: 1, rejected: 1 },
  dataDir: '/var/lib/narvik',
  socket: '/run/narvik/narvik.sock',
  freeBytes: 53_687_091_200,
  paused: null,
  scrub: { lastAt: '2026-03-01T12:00:00.000Z', nextAt: '2026-03-02T12:00:00.000Z', underWay: null, damaged: 0 },
  fleet: false,
  nix: { available: true, detail: 'nix 2.34.8' },
}

const peer: PeerJson = {
  peerId: PEER,
  addresses: ['/ip4/127.0.0.1/tcp/4650'],
  direction: 'outbound',
  latencyMs: 0.42,
  agent: 'narvik/0.1.0',
  connectedSince: '2026-03-01T12:00:00.000Z',
  banned: false,
  bytesReceived: 644_245_094,
  bytesSent: 0,
}

const publishedName: PublishedNameJson = {
  name: 'web', publisher: 'fleet-1:5uBQxKvGn06LEcJSv0c6iOfSxbrYyVCQNNysZUj04hI=', narHash: GOOD_HASH, seq: 1_772_366_400_000,
  publishedAt: '2026-03-01T12:00:00.000Z', expiresAt: '2199-05-30T12:00:00.000Z', trusted: true, own: true,
}

const ban: BanJson = { peerId: PEER, reason: 'its bytes do not give the NAR hash', since: '2026-03-01T12:00:00.000Z', until: '2026-03-01T13:00:00.000Z', times: 1 }

export const someProgress: Progress = {
  narHash: GOOD_HASH,
  phase: 'receiving',
  bytes: 644_245_094,
  totalBytes: 1_288_490_189,
  bytesPerSecond: 104_857_600,
  peers: [{ peerId: PEER, bytes: 644_245_094 }],
}

export const someEvents: readonly HostEvent[] = [
  { at: '2026-03-01T12:00:00.000Z', type: 'peer', peerId: PEER, event: 'connected', reason: null },
  { at: '2026-03-01T12:00:01.000Z', type: 'work', kind: 'fetch', narHash: BAD_HASH, name: null, event: 'started', code: null, reason: null },
  { at: '2026-03-01T12:00:09.000Z', type: 'image', narHash: BAD_HASH, name: null, event: 'fail', from: 'quarantined', to: 'rejected', reason: 'the NAR hash of the tree is another', code: 'wrong-nar-hash' },
  { at: '2026-03-01T12:00:09.000Z', type: 'log', level: 'warn', message: 'banned a peer', fields: { peerId: PEER } },
]

const transfer: TransferJson = { ...someProgress, narHash: GOOD_HASH, name: 'web-1', direction: 'in', queuePosition: null, startedAt: '2026-03-01T12:00:00.000Z' }

const queue: QueueJson = [
  { position: 1, narHash: GOOD_HASH, name: 'web-1', priority: 10, since: '2026-03-01T12:00:00.000Z' },
  { position: 2, narHash: BAD_HASH, name: null, priority: 0, since: '2026-03-01T12:00:00.000Z' },
]

const usage: UsageJson = {
  quotaBytes: 214_748_364_800, usedBytes: 1_100_000_000, claimedBytes: 0, catalogBytes: 200_704, freeBytes: 53_687_091_200, minFreeBytes: 1_073_741_824, paused: null,
  images: [
    { narHash: GOOD_HASH, name: 'web-1', state: 'verified', place: 'content', diskBytes: 900_000_000, apparentBytes: 1_288_490_000, pinned: true, usedAt: '2026-03-01T12:00:05.000Z' },
    { narHash: BAD_HASH, name: null, state: 'rejected', place: 'quarantine', diskBytes: 199_799_296, apparentBytes: 199_799_296, pinned: false, usedAt: '2026-03-01T12:00:00.000Z' },
  ],
}

const collection: CollectionJson = {
  dryRun: false, freedBytes: 199_799_296,
  collected: [{ narHash: BAD_HASH, name: null, what: 'rejected', diskBytes: 199_799_296, usedAt: '2026-03-01T12:00:00.000Z' }],
  kept: [{ narHash: GOOD_HASH, name: 'web-1', reason: 'it is in use' }],
}

/**
 * A daemon's inside that is none: it knows one good and one bad image, and answers by the last part of the path or by
 * the name that it is asked with. `overrides` replaces single tasks.
 */
export function fakeTasks(overrides: Partial<Tasks> = {}): Tasks {
  return {
    importImage: ({ path, name, ...work }) => {
      if (path.endsWith('/absent')) throw new NarvikError('not-found', `Cannot import ${path}: found no such file, needed a file tree`)
      return finish({ ...goodImage, name: name ?? null }, work)
    },
    fetchImage: ({ ref, name, ...work }) => {
      const text = refText(ref)
      if (text === 'slow') throw new NarvikError('timed-out', 'Cannot fetch slow: found no provider in 1 s, needed one', { hint: 'Give it more time with --timeout' })
      if (text === 'denied') throw new NarvikError('refused', 'Cannot fetch denied: found no signature of a trusted key, needed one')
      if (text === BAD_HASH) throw new NarvikError('verification-failed', `Cannot publish ${BAD_HASH}: found the NAR hash ${GOOD_HASH}, needed ${BAD_HASH}`, { hint: `See: narvik show ${BAD_HASH}` })
      return finish({ ...known(ref), source: 'fetch', name: name ?? 'web-1' }, work)
    },
    verifyImages: ({ ref, repair, ...work }) => finish<VerifyReportJson>({
      results: [
        ...(ref === 'all' || known(ref) === goodImage ? [{ narHash: GOOD_HASH, name: 'web-1', verdict: 'pass' as const, stages: stages.slice(0, 1), reason: null, ...repair === true && { repaired: { bytes: 150_000, received: 100_000 } } }] : []),
        ...(ref === 'all' || known(ref) === badImage ? [{ narHash: BAD_HASH, name: null, verdict: 'fail' as const, stages, reason: badImage.reason }] : []),
      ],
    }, work),
    exportImage: ({ ref, dest, ...work }) => {
      if (known(ref) === badImage) throw new NarvikError('conflict', `Cannot export ${BAD_HASH}: found it rejected, needed it verified`)
      return finish({ path: dest }, work)
    },
    installImage: ({ ref, ...work }) => finish({ storePath: known(ref).storePath ?? STORE_PATH, added: [STORE_PATH] }, work),
    makePrivate: request => ({ ...known(request.ref), private: request.private }),
    removeImage: ({ ref }) => Promise.resolve(known(ref)),
    cancelFetch: ({ ref }) => {
      if (known(ref) === goodImage) throw new NarvikError('conflict', `Cannot cancel ${GOOD_HASH}: found it verified, needed a fetch under way`, { hint: 'To remove an image that is here: narvik rm' })
      return Promise.resolve(known(ref))
    },
    queue: () => queue,
    moveInQueue: ({ position }) => position === 1 ? queue.toReversed().map((waiting, index) => ({ ...waiting, position: index + 1 })) : queue,
    pinImage: ({ ref, pinned }) => ({ ...known(ref), pinned }),
    collectGarbage: ({ dryRun = false }) => Promise.resolve({ ...collection, dryRun }),
    usage: () => Promise.resolve(usage),
    list: () => [goodImage, badImage],
    show: ref => known(ref) === badImage ? badDetails : { ...goodImage, otherStorePaths: [], publishedNames: [], closure: null, journal: badDetails.journal.slice(0, 1) },
    explain: ref => {
      const { narHash, narSize, name, state, reason } = known(ref)
      const isBad = known(ref) === badImage
      return {
        narHash, narSize, name, state, reason, zeros: 4096, wasted: 0, repaired: 0, reused: [], names: [], refusedNames: [],
        why: 'it was asked for by its NAR hash',
        peers: isBad ? [{ peerId: PEER, bytes: 1024, wasted: 1024, outcome: 'lied', detail: 'the only peer that sent' }] : [{ peerId: PEER, bytes: 1024, wasted: 0, outcome: 'used', detail: null }],
        refused: isBad ? [{ by: PEER, detail: 'lied: the only peer that sent' }] : [],
        tried: [{ at: '2026-03-01T12:00:00.000Z', event: 'create', reason: 'asked for' }],
        next: isBad ? 'it stays out of reach; narvik fetch tries again, narvik rm drops it' : 'it is served to peers',
      }
    },
    chunks: ref => {
      const { narHash, narSize, state } = known(ref)
      return { narHash, state, chunks: { count: 4, proven: 2 }, bytes: 644_245_094, totalBytes: narSize, cells: Buffer.from([255, 255, 0, 0]).toString('base64') }
    },
    status: () => goodStatus,
    peers: () => [peer],
    publishName: () => publishedName,
    names: () => [publishedName],
    bans: () => [ban],
    unban: ({ peerId }) => {
      if (peerId === PEER) return ban
      throw new NarvikError('not-found', `Cannot lift the ban of ${peerId}: found none, needed one that is in force`)
    },
    transfers: () => [transfer],
    metrics: () => Promise.resolve('# HELP narvik_peers Peers.\n# TYPE narvik_peers gauge\nnarvik_peers{connection="inbound"} 1\n'),
    follow: listener => {
      for (const event of someEvents) listener(event)
      return () => undefined
    },
    ...overrides,
  }
}

function known(ref: Ref): ImageJson {
  const text = refText(ref)
  if (text === GOOD_HASH || text === 'web-1') return goodImage
  if (text === BAD_HASH) return badImage
  throw new NarvikError('not-found', `Cannot find ${text}: found no such image in the catalog, needed one that 'narvik list' shows`)
}

function finish<T>(result: T, { onProgress, signal }: LongWork): Promise<T> {
  signal.throwIfAborted()
  onProgress(someProgress)
  onProgress({ ...someProgress, phase: 'verifying', bytes: 1_288_490_189, peers: [] })
  return Promise.resolve(result)
}
