import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from './config.ts'
import type { Tasks } from './control/api.ts'
import { createControlServer } from './control/server.ts'
import { messageOf, NarvikError } from './errors.ts'
import { createLogger, type Logger } from './log.ts'
import { Metrics } from './metrics/metrics.ts'
import { MetricsServer } from './metrics/server.ts'
import { NixCommand } from './nix/command.ts'
import { parsePublicKey } from './nix/signature.ts'
import { notifySystemd, startHeartbeat } from './notify.ts'
import { FleetKeyring } from './p2p/fleet.ts'
import { loadIdentity } from './p2p/identity.ts'
import { createNode, type P2pNode } from './p2p/node.ts'
import { readFleet, Reload } from './reload.ts'
import { Catalog } from './store/catalog.ts'
import { Content } from './store/content.ts'
import type { ImageRow } from './store/image-row.ts'
import { reconcile } from './store/reconcile.ts'
import { Announcer } from './tasks/announce.ts'
import { Events, tellOf, telling } from './tasks/events.ts'
import { checkForChanges, checkRegistrations } from './tasks/check-places.ts'
import { alignAllRoots } from './tasks/gc-roots.ts'
import { createTasks } from './tasks/all.ts'
import type { TaskContext } from './tasks/context.ts'
import { FetchQueue } from './tasks/fetch-queue.ts'
import { Jobs } from './tasks/jobs.ts'
import { PathInfos } from './tasks/path-infos.ts'
import { resumeWork } from './tasks/resume.ts'
import { Collector } from './tasks/space/collector.ts'
import { Space, type SpaceSettings } from './tasks/space/space.ts'
import { Uses } from './tasks/space/uses.ts'
import { createClosureSource, createImageSource } from './tasks/serve.ts'
import { Scrubber, type ScrubSettings } from './tasks/scrub.ts'
import { reviewTrust } from './tasks/trust.ts'
import { handleDamage } from './tasks/verify-image.ts'

/** What a person is told once the daemon can be used. */
export interface ReadyInfo {
  readonly peerId: string
  readonly addresses: readonly string[]
  readonly socket: string
  readonly dataDir: string
}

export interface DaemonHooks {
  readonly onReady: (info: ReadyInfo) => void
  /** Reads the configuration anew, from where it came from. */
  readonly load: () => Config
}

/** Bytes per second below which a provider is left for another one. */
const SLOW_BYTES_PER_SECOND = 32 * 1024
/** Milliseconds for which a peer that was proven to lie is banned. */
const BAN_MS = 60 * 60 * 1000

/**
 * Runs a node until it is asked to end, and answers with the exit code. This is where every part is made and joined to
 * the others; what was started last is stopped first.
 */
export async function runDaemon(config: Config, { onReady, load }: DaemonHooks): Promise<number> {
  const events = new Events()
  const logger = telling(createLogger(config.log), events)
  const ended = untilSignal(logger)
  const hangups = countHangups()
  await using stack = new AsyncDisposableStack()

  const { content, catalog } = await openStore(config, logger, stack)

  const nix = new NixCommand({ logger }, { queryTimeoutMs: config.nix.queryTimeoutSeconds * 1000, ...(config.nix.binDir !== null && { binDir: config.nix.binDir }) })
  const damage: { handle: (row: ImageRow, reason: string) => void } = { handle: () => undefined }
  const uses = startUses(catalog, logger, stack)
  const source = createImageSource({ catalog, content, uses, logger, onDamage: (row, reason) => { damage.handle(row, reason) } })
  const keyring = new FleetKeyring(await readFleet(config))
  const node = await makeNode(config, keyring, { banStore: catalog.bans, source, closures: createClosureSource({ catalog, uses, logger }), logger })

  const jobs = new Jobs()
  const queue = new FetchQueue(config.fetch.atOnce)
  const closures = new Jobs()
  let settings = settingsOf(config)
  const announcer = new Announcer({ router: node.router, logger }, { policy: () => settings.announce })
  const space = new Space({ catalog, content, logger, collector: new Collector({ catalog, content, node, jobs, announcer, uses, logger }) }, spaceSettingsOf(config))
  const context: TaskContext = {
    catalog, content, node, nix, uses, space, queue, pathInfos: new PathInfos({ nix, known: catalog.knownPaths, logger }), jobs, closures, announcer, logger,
    get settings() { return settings },
  }
  stack.defer(tellOf({ ...context, events }))
  damage.handle = (row, reason) => { handleDamage(context, row, reason) }
  const version = await readVersion()
  const metrics = stack.use(new Metrics({ ...context, events }, { version }))
  const tasks: Tasks = createTasks(context, { version, startedAt: new Date(), dataDir: config.dataDir, socket: config.socket, fleet: config.fleetKeyFile !== null }, { events, metrics })

  await reviewTrust(context)

  await node.start()
  stack.defer(() => node.stop())
  stack.defer(() => announcer.stop())
  await checkForChanges(context)
  const scrubber = startWork(context, config, stack)
  const server = createControlServer({ tasks, logger }, { socket: config.socket })
  await server.start()
  stack.defer(() => server.stop())
  stack.defer(await startMetricsServer(config, { metrics, logger }))
  announcer.announceAll(catalog)
  stack.defer(startLooking(context))
  const reload = new Reload({ keyring, node, logger, settle: async next => {
    settings = settingsOf(next)
    putIntoForce({ space, queue, scrubber, node }, next)
    await reviewTrust(context)
    announcer.announceAll(catalog)
  } }, { config, load })
  stack.defer(hangups.each(() => { void reload.run() }))

  stack.defer(await tellReady(context))
  logger.info('ready', { peerId: node.peerId, socket: config.socket })
  onReady({ peerId: node.peerId, addresses: node.addresses, socket: config.socket, dataDir: config.dataDir })

  await tellOfEnd(await ended, logger)
  return 0
}

function startUses(catalog: Catalog, logger: Logger, stack: AsyncDisposableStack): Uses {
  const uses = new Uses({ catalog, logger })
  uses.start()
  stack.defer(() => { uses.stop() })
  return uses
}

/** Goes on with what was left, and begins what goes on in the background. */
function startWork(context: TaskContext, config: Config, stack: AsyncDisposableStack): Scrubber {
  const stopResuming = resumeWork(context)
  const scrubber = new Scrubber(context, scrubSettingsOf(config))
  scrubber.start()
  stack.defer(() => scrubber.stop())
  stack.defer(async () => { await Promise.all([context.jobs.stop(), context.closures.stop()]) })
  stack.defer(stopResuming)
  return scrubber
}

/** What a reload changes of the parts that have settings of their own. */
function putIntoForce({ space, queue, scrubber, node }: { space: Space, queue: FetchQueue, scrubber: Scrubber, node: P2pNode }, config: Config): void {
  space.configure(spaceSettingsOf(config))
  queue.configure(config.fetch.atOnce)
  scrubber.configure(scrubSettingsOf(config))
  applyRates(node, config)
}

async function tellOfEnd(signal: string, logger: Logger): Promise<void> {
  logger.info('stopping', { signal })
  // Systemd knows that it has asked; that it can't be told so is no reason to leave in disorder.
  await notifySystemd('stopping').catch((error: unknown) => { logger.warn(messageOf(error)) })
}

/** What this host remembers, with rows and files made to agree. */
async function openStore({ dataDir }: Config, logger: Logger, stack: AsyncDisposableStack): Promise<{ readonly content: Content, readonly catalog: Catalog }> {
  const content = await Content.open(dataDir)
  stack.defer(() => { content.close() })
  const catalog = Catalog.open(join(dataDir, 'catalog.db'))
  stack.defer(() => { catalog.close() })
  await reconcile(catalog, content, { logger })
  return { content, catalog }
}

/** Tells systemd that the daemon is ready, and from then on that it is alive; answers with how to end that. */
async function tellReady(context: TaskContext): Promise<() => void> {
  await notifySystemd('ready')
  return startHeartbeat({ check: () => { context.catalog.list({ state: 'receiving' }) }, status: () => statusLine(context), logger: context.logger })
}

/** What `systemctl status` shows. */
function statusLine({ catalog, jobs, node }: TaskContext): string {
  const peers = node.peers().filter(({ direction }) => direction !== null).length
  return `${peers} peers, ${catalog.list({ state: 'verified' }).length} images verified, ${catalog.list({ state: 'rejected' }).length} rejected, ${jobs.list().length} under way`
}

/** Opens the port for Prometheus where one is configured; answers with how to close it. */
async function startMetricsServer({ metrics: { host, port } }: Config, { metrics, logger }: { readonly metrics: Metrics, readonly logger: Logger }): Promise<() => Promise<void>> {
  if (port === null) return () => Promise.resolve()
  const server = new MetricsServer({ text: () => metrics.text(), logger }, { host, port })
  logger.info('metrics', { host, port: await server.start() })
  return () => server.stop()
}

/** Compares what is here with the Nix store, beside everything else: Nix may take its time. Answers with how to end that. */
function startLooking(context: TaskContext): () => Promise<void> {
  const ending = new AbortController()
  const looking = Promise.all([alignAllRoots(context, ending.signal), checkRegistrations(context, ending.signal)])
  return async () => {
    ending.abort()
    await looking
  }
}

async function makeNode(config: Config, fleet: FleetKeyring, parts: Pick<Parameters<typeof createNode>[0], 'source' | 'closures' | 'banStore' | 'logger'>): Promise<P2pNode> {
  const node = await createNode(parts, {
    identity: await loadIdentity(join(config.dataDir, 'identity.key')),
    listen: config.listen,
    bootstrap: config.bootstrap,
    mdns: config.mdns,
    stallMs: config.fetch.stallSeconds * 1000,
    allowOpen: config.allowOpen,
    fleet,
    peers: config.peers,
  })
  applyRates(node, config)
  return node
}

function settingsOf({ nix, fetch, trust, sharing, rates }: Config): TaskContext['settings'] {
  return {
    trust: {
      keys: trust.keys.map(text => parsePublicKey(text)),
      needed: { 'nar-hash': trust.signaturesByHash, 'store-path': trust.signaturesByStorePath, 'name': trust.signaturesByName },
    },
    announce: sharing.announce,
    useNix: nix.enabled,
    storeAddMaxBytes: nix.storeAddMaxBytes,
    providerWaitMs: fetch.providerWaitSeconds * 1000,
    stallMs: fetch.stallSeconds * 1000,
    // A host that is slow by its own limit must not blame its providers.
    slowBytesPerSecond: rates.download === 0 ? SLOW_BYTES_PER_SECOND : Math.min(SLOW_BYTES_PER_SECOND, rates.download / 16),
    banMs: BAN_MS,
  }
}

function applyRates(node: P2pNode, { rates }: Config): void {
  const limit = (bytesPerSecond: number): number | null => bytesPerSecond === 0 ? null : bytesPerSecond
  const { upload, download, uploadPerPeer, downloadPerPeer, uploadSlots } = rates
  node.setRates({ upload: limit(upload), download: limit(download), uploadPerPeer: limit(uploadPerPeer), downloadPerPeer: limit(downloadPerPeer) }, uploadSlots)
}

function scrubSettingsOf({ scrub }: Config): ScrubSettings {
  return { bytesPerSecond: scrub.bytesPerSecond, intervalMs: scrub.intervalDays * 24 * 3600 * 1000 }
}

function spaceSettingsOf({ space }: Config): SpaceSettings {
  return { quotaBytes: space.quota, minFreeBytes: space.minFree, minCopies: space.minCopies }
}

/** Resolves with the name of the signal that asks the daemon to end; a second one ends it at once. */
function untilSignal(logger: Logger): Promise<string> {
  return new Promise(resolve => {
    let asked = false
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.on(name, () => {
        if (asked) {
          logger.warn('ending at once', { signal: name })
          process.exit(1)
        }
        asked = true
        resolve(name)
      })
    }
  })
}

/** Takes SIGHUP from the first moment on, as it would end the process otherwise; one that comes before anybody can act on it is not lost. */
function countHangups(): { each: (act: () => void) => () => void } {
  let early = 0
  let act = (): void => { early += 1 }
  process.on('SIGHUP', () => { act() })
  return {
    each: next => {
      act = next
      if (early > 0) next()
      return () => { act = () => undefined }
    },
  }
}

async function readVersion(): Promise<string> {
  const text = await readFile(new URL('../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version?: unknown }
  if (typeof version !== 'string') throw new NarvikError('internal', `Cannot read the version: ${messageOf(text)}`)
  return version
}
