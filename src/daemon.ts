import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from './config.ts'
import type { Tasks } from './control/api.ts'
import { isLoopbackHost } from './control/guard.ts'
import { createControlServer, createPageServer, type ControlComponents } from './control/server.ts'
import { messageOf, NarvikError } from './errors.ts'
import { createLogger, type Logger } from './log.ts'
import { Metrics } from './metrics/metrics.ts'
import { MetricsServer } from './metrics/server.ts'
import { NixCommand } from './nix/command.ts'
import { notifySystemd, startHeartbeat } from './notify.ts'
import { FleetKeyring } from './p2p/fleet.ts'
import { loadIdentity } from './p2p/identity.ts'
import { createNode, type NodeComponents, type P2pNode } from './p2p/node.ts'
import { PageFiles } from './page/files.ts'
import { readFleet, Reload } from './reload.ts'
import { scrubSettingsOf, settingsOf, spaceSettingsOf } from './settings.ts'
import { countHangups, untilSignal } from './signals.ts'
import { Catalog } from './store/catalog.ts'
import { Content } from './store/content.ts'
import { reconcile } from './store/reconcile.ts'
import { Announcer } from './tasks/announce.ts'
import { Events, tellOf, telling } from './tasks/events.ts'
import { checkForChanges, checkRegistrations } from './tasks/check-places.ts'
import { alignAllRoots } from './tasks/gc-roots.ts'
import { createTasks } from './tasks/all.ts'
import type { TaskContext } from './tasks/context.ts'
import { FetchQueue } from './tasks/fetch-queue.ts'
import { Installer } from './tasks/installer.ts'
import { Jobs } from './tasks/jobs.ts'
import { PathInfos } from './tasks/path-infos.ts'
import { keepNames } from './tasks/published-names.ts'
import { resumeWork } from './tasks/resume.ts'
import { Collector } from './tasks/space/collector.ts'
import { Space } from './tasks/space/space.ts'
import { Uses } from './tasks/space/uses.ts'
import { createChunkSource } from './tasks/chunk-source.ts'
import { createClosureSource, createImageSource, type ServeParts } from './tasks/serve.ts'
import { Scrubber } from './tasks/scrub.ts'
import { Receiving } from './tasks/swarm/receiving.ts'
import { reviewTrust } from './tasks/trust.ts'
import { handleDamage } from './tasks/verify-image.ts'
import { Traces } from './trace/traces.ts'

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
  const damage: { handle: ServeParts['onDamage'] } = { handle: () => undefined }
  const uses = startUses(catalog, logger, stack)
  const receiving = new Receiving()
  const keyring = new FleetKeyring(await readFleet(config))
  const traces = stack.use(new Traces())
  const node = await makeNode(config, keyring, { catalog, content, uses, receiving, logger, onDamage: (row, reason) => { damage.handle(row, reason) }, onServed: exchange => { traces.served(exchange) } })

  const jobs = new Jobs()
  const queue = new FetchQueue(config.fetch.atOnce)
  const closures = new Jobs()
  let settings = settingsOf(config)
  const announcer = new Announcer({ router: node.router, logger }, { policy: () => settings.announce })
  const space = new Space({ catalog, content, logger, collector: new Collector({ catalog, content, node, jobs, announcer, uses, logger }) }, spaceSettingsOf(config))
  const context: TaskContext = {
    catalog, content, node, nix, uses, space, queue, pathInfos: new PathInfos({ nix, known: catalog.knownPaths, logger }), jobs, closures, announcer, receiving, logger,
    get settings() { return settings },
  }
  stack.defer(tellOf({ ...context, events }))
  damage.handle = (row, reason) => { handleDamage(context, row, reason) }
  const version = await readVersion()
  const metrics = stack.use(new Metrics({ ...context, events }, { version }))
  await traces.start({ endpoint: config.traces.endpoint, version, peerId: node.peerId, env: process.env }, { logger })
  const scrubber = new Scrubber(context, scrubSettingsOf(config))
  const facts = { scrubber, version, startedAt: new Date(), dataDir: config.dataDir, socket: config.socket, fleet: config.fleetKeyFile !== null }
  const tasks: Tasks = traces.watch(context, createTasks(context, facts, { events, metrics }))

  await reviewTrust(context)

  await node.start()
  stack.defer(() => stopNode(node, logger))
  stack.defer(() => announcer.stop())
  await checkForChanges(context)
  startWork(context, scrubber, stack)
  await startServers(config, { tasks, metrics, logger }, stack)
  announcer.announceAll(catalog)
  const installer = startInstalling(context, stack)
  const settle = (next: Config): Promise<void> => { settings = settingsOf(next); return takeUpSettings(context, next, { space, queue, scrubber, node, installer }) }
  const reload = new Reload({ keyring, node, logger, settle }, { config, load })
  stack.defer(hangups.each(() => { void reload.run() }))

  stack.defer(await tellReady(context))
  logger.info('ready', { version, peerId: node.peerId, addresses: node.addresses, socket: config.socket, dataDir: config.dataDir })
  onReady({ peerId: node.peerId, addresses: node.addresses, socket: config.socket, dataDir: config.dataDir })

  await tellOfEnd(await ended, logger)
  return 0
}

/** Answers on the control socket and, where they are asked for, on the ports of the page and of the metrics. */
async function startServers(config: Config, { tasks, metrics, logger }: { tasks: Tasks, metrics: Metrics, logger: Logger }, stack: AsyncDisposableStack): Promise<void> {
  const control = { tasks, page: new PageFiles(), logger }
  const server = createControlServer(control, { socket: config.socket })
  await server.start()
  stack.defer(() => server.stop())
  stack.defer(await startPageServer(config, control))
  stack.defer(await startMetricsServer(config, { metrics, logger }))
}

function startUses(catalog: Catalog, logger: Logger, stack: AsyncDisposableStack): Uses {
  const uses = new Uses({ catalog, logger })
  uses.start()
  stack.defer(() => { uses.stop() })
  return uses
}

/** Goes on with what was left, and begins what goes on in the background. */
function startWork(context: TaskContext, scrubber: Scrubber, stack: AsyncDisposableStack): void {
  const stopResuming = resumeWork(context)
  scrubber.start()
  stack.defer(() => scrubber.stop())
  stack.defer(async () => { await Promise.all([context.jobs.stop(), context.closures.stop()]) })
  stack.defer(stopResuming)
}

/** The metrics can't tell the rest of the books any more. */
async function stopNode(node: P2pNode, logger: Logger): Promise<void> {
  await node.stop()
  logger.info('stopped', { traffic: Object.fromEntries(node.traffic) })
}

async function tellOfEnd(signal: string, logger: Logger): Promise<void> {
  logger.info('stopping', { signal })
  // Systemd knows that it has asked; that it can't be told so is no reason to leave in disorder.
  await notifySystemd('stopping').catch((error: unknown) => { logger.warn(messageOf(error)) })
}

/** What is compared with Nix and installed, beside everything else. */
function startInstalling(context: TaskContext, stack: AsyncDisposableStack): Installer {
  keepNames(context)
  const installer = stack.use(new Installer(context))
  stack.defer(startLooking(context, installer))
  return installer
}

/** The parts that have settings of their own. */
interface Configured {
  readonly space: Space
  readonly queue: FetchQueue
  readonly scrubber: Scrubber
  readonly node: P2pNode
  readonly installer: Installer
}

/** Other keys may be trusted now, other images be announced, others be installed, and there may be more or less room and bandwidth. */
async function takeUpSettings(context: TaskContext, config: Config, { space, queue, scrubber, node, installer }: Configured): Promise<void> {
  space.configure(spaceSettingsOf(config))
  queue.configure(config.fetch.atOnce)
  scrubber.configure(scrubSettingsOf(config))
  applyRates(node, config)
  await reviewTrust(context)
  context.announcer.announceAll(context.catalog)
  installer.takeUpAll()
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
  return startHeartbeat({ check: () => { context.catalog.count('verified') }, status: () => statusLine(context), logger: context.logger })
}

/** What `systemctl status` shows. */
function statusLine({ catalog, jobs, node }: TaskContext): string {
  const peers = node.peers().filter(({ direction }) => direction !== null).length
  return `${peers} peers, ${catalog.count('verified')} images verified, ${catalog.count('rejected')} rejected, ${jobs.list().length} under way`
}

/** Opens the port for Prometheus where one is configured; answers with how to close it. */
async function startMetricsServer({ metrics: { host, port } }: Config, { metrics, logger }: { readonly metrics: Metrics, readonly logger: Logger }): Promise<() => Promise<void>> {
  if (port === null) return () => Promise.resolve()
  // What is open to others is asked by whatever name they know.
  const isOurs = (name: string): boolean => !isLoopbackHost(host.includes(':') ? `[${host}]` : host) || isLoopbackHost(name)
  const server = new MetricsServer({ text: () => metrics.text(), logger, isOurs }, { host, port })
  logger.info('metrics', { host, port: await server.start() })
  return () => server.stop()
}

/** Opens the port for a browser where one is configured; answers with how to close it. */
async function startPageServer({ page: { host, port } }: Config, control: ControlComponents): Promise<() => Promise<void>> {
  if (port === null) return () => Promise.resolve()
  const server = createPageServer(control, { host, port })
  await server.start()
  control.logger.info('page', { address: `http://${host.includes(':') ? `[${host}]` : host}:${server.port ?? port}/` })
  return () => server.stop()
}

/** Compares what is here with the Nix store, beside everything else: Nix may take its time. Answers with how to end that. */
function startLooking(context: TaskContext, installer: Installer): () => Promise<void> {
  const ending = new AbortController()
  const looking = Promise.all([alignAllRoots(context, ending.signal).then(() => { installer.takeUpAll() }), checkRegistrations(context, ending.signal)])
  return async () => {
    ending.abort()
    await looking
  }
}

async function makeNode(config: Config, fleet: FleetKeyring, serving: ServeParts & Pick<NodeComponents, 'onServed'>): Promise<P2pNode> {
  const { catalog, logger, onServed } = serving
  const parts = { banStore: catalog.bans, source: createImageSource(serving), closures: createClosureSource(serving), chunks: createChunkSource(serving), onServed, logger }
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

function applyRates(node: P2pNode, { rates }: Config): void {
  const limit = (bytesPerSecond: number): number | null => bytesPerSecond === 0 ? null : bytesPerSecond
  const { upload, download, uploadPerPeer, downloadPerPeer, uploadSlots } = rates
  node.setRates({ upload: limit(upload), download: limit(download), uploadPerPeer: limit(uploadPerPeer), downloadPerPeer: limit(downloadPerPeer) }, uploadSlots)
}

async function readVersion(): Promise<string> {
  const text = await readFile(new URL('../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version?: unknown }
  if (typeof version !== 'string') throw new NarvikError('internal', `Cannot read the version: ${messageOf(text)}`)
  return version
}
