import { join } from 'node:path'
import type { Config } from './config.ts'
import { parsePublicKey } from './nix/signature.ts'
import type { TaskContext } from './tasks/context.ts'
import type { ScrubSettings } from './tasks/scrub.ts'
import type { SpaceSettings } from './tasks/space/space.ts'

/** Bytes per second below which a provider is left for another one. */
const SLOW_BYTES_PER_SECOND = 32 * 1024
/** Milliseconds for which a peer that was proven to lie is banned. */
const BAN_MS = 60 * 60 * 1000

/** What the configuration says to the tasks. */
export function settingsOf({ dataDir, fleetKeyFile, acceptFleetKeyFiles, nix, fetch, trust, sharing, rates }: Config): TaskContext['settings'] {
  return {
    trust: {
      keys: trust.keys.map(text => parsePublicKey(text)),
      needed: { 'nar-hash': trust.signaturesByHash, 'store-path': trust.signaturesByStorePath, 'name': trust.signaturesByName },
    },
    announce: sharing.announce,
    guarded: {
      dataDir,
      secrets: [
        ...['identity.key', 'catalog.db', 'catalog.db-wal', 'catalog.db-shm', 'quarantine'].map(name => join(dataDir, name)),
        ...acceptFleetKeyFiles, ...(fleetKeyFile === null ? [] : [fleetKeyFile]),
      ],
    },
    useNix: nix.enabled,
    storeAddMaxBytes: nix.storeAddMaxBytes,
    installFetched: nix.installFetched,
    providerWaitMs: fetch.providerWaitSeconds * 1000,
    stallMs: fetch.stallSeconds * 1000,
    // A host that is slow by its own limit must not blame its providers.
    slowBytesPerSecond: rates.download === 0 ? SLOW_BYTES_PER_SECOND : Math.min(SLOW_BYTES_PER_SECOND, rates.download / 16),
    banMs: BAN_MS,
  }
}

export function scrubSettingsOf({ scrub }: Config): ScrubSettings {
  return { bytesPerSecond: scrub.bytesPerSecond, intervalMs: scrub.intervalDays * 24 * 3600 * 1000 }
}

export function spaceSettingsOf({ space }: Config): SpaceSettings {
  return { quotaBytes: space.quota, minFreeBytes: space.minFree, minCopies: space.minCopies }
}
