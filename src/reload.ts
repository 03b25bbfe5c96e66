import { changedKeys, type Config } from './config.ts'
import { isNarvikError, messageOf, NarvikError } from './errors.ts'
import { readFleetKey } from './fleet-key.ts'
import type { Logger } from './log.ts'
import { notifySystemd } from './notify.ts'
import { type FleetKeyring, type FleetKeys, fleetKeys, NO_FLEET } from './p2p/fleet.ts'
import type { P2pNode } from './p2p/node.ts'

/** What is put into force while the daemon runs; every other key of the configuration needs a restart. */
export const HOT_KEYS: ReadonlySet<string> = new Set([
  'fleet_key_file', 'accept_fleet_key_files', 'peers.allow', 'peers.deny', 'sharing.announce',
  'trust.keys', 'trust.signatures_by_hash', 'trust.signatures_by_store_path', 'trust.signatures_by_name',
  'scrub.bytes_per_second', 'scrub.interval_days', 'space.quota', 'space.min_free', 'space.min_copies',
  'rates.upload', 'rates.download', 'rates.upload_per_peer', 'rates.download_per_peer', 'rates.upload_slots',
  'nix.enabled', 'nix.store_add_max_bytes', 'nix.install_fetched', 'fetch.provider_wait_seconds', 'fetch.at_once',
])

export interface ReloadComponents {
  readonly keyring: FleetKeyring
  readonly node: Pick<P2pNode, 'setPeers' | 'reconnect'>
  readonly logger: Logger
  /** Puts into force what the tasks go by. */
  readonly settle: (config: Config) => Promise<void>
}

/** The keys that the configuration names. */
export async function readFleet({ fleetKeyFile, acceptFleetKeyFiles }: Config): Promise<FleetKeys> {
  if (fleetKeyFile !== null) return fleetKeys(await readFleetKey(fleetKeyFile), ...await Promise.all(acceptFleetKeyFiles.map(readFleetKey)))
  if (acceptFleetKeyFiles.length === 0) return NO_FLEET
  throw new NarvikError('invalid-config', 'Cannot use accept_fleet_key_files: found no fleet_key_file beside it, needed the key that this host dials with')
}

/** Reads the configuration anew when it is asked to. One with a mistake changes nothing; what needs a restart is said. */
export class Reload {
  readonly #components: ReloadComponents
  readonly #load: () => Config
  #config: Config
  #turn: Promise<void> = Promise.resolve()

  constructor(components: ReloadComponents, { config, load }: { readonly config: Config, readonly load: () => Config }) {
    this.#components = components
    this.#config = config
    this.#load = load
  }

  /** Never rejects; one after another where it is asked several times. */
  run(): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      await this.#notify('reloading')
      try {
        await this.#apply(this.#load())
      } catch (error) {
        this.#components.logger.error('the configuration was not reloaded, the one before stays in force', { reason: messageOf(error), ...isNarvikError(error) && error.hint !== undefined && { hint: error.hint } })
      }
      await this.#notify('ready')
    })
    return this.#turn
  }

  /** A reload goes on where systemd can't be told of it. */
  async #notify(event: 'reloading' | 'ready'): Promise<void> {
    await notifySystemd(event).catch((error: unknown) => { this.#components.logger.error('cannot tell systemd of the reload', { reason: messageOf(error) }) })
  }

  async #apply(config: Config): Promise<void> {
    const { keyring, node, logger, settle } = this.#components
    const fleet = await readFleet(config)
    const changed = changedKeys(this.#config, config)
    const isFleetSame = (fleet.dial === undefined) === (keyring.dial === undefined)
    // The listening addresses were allowed with, or without, a key; and the handshake is another one.
    const late = changed.filter(key => !HOT_KEYS.has(key) || (key === 'fleet_key_file' && !isFleetSame))
    const hasKeyGone = isFleetSame && keyring.replace(fleet)
    node.setPeers(config.peers)
    await settle(config)
    if (hasKeyGone) node.reconnect()
    this.#config = config
    logger.info('reloaded the configuration', { changed: changed.filter(key => !late.includes(key)) })
    if (late.length > 0) logger.warn('these keys of the configuration have changed and need a restart', { keys: late })
  }
}
