import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import { DEFAULT_STORE_DIR, isStoreDir } from './store-path.ts'

/**
 * Where the store that Nix would use is. `nix` makes an absent store when it runs as root, even to answer a question; so
 * this is looked at before it runs.
 */
export interface StoreLocation {
  /** As paths are written: `/nix/store`, also where `store` is a directory that has another `nix/store` inside. */
  readonly storeDir: string
  /** The directory on this machine, or null where the store is reached some other way. */
  readonly directory: string | null
  /** The state directory of a local store, with its database and its daemon's socket. */
  readonly stateDir: string | null
}

export function locateStore(store: string | undefined, env: Readonly<Record<string, string | undefined>>): StoreLocation {
  const configured = env['NIX_STORE_DIR'] ?? env['NIX_STORE']
  const storeDir = configured !== undefined && isStoreDir(configured) ? configured : DEFAULT_STORE_DIR
  const remote = store ?? env['NIX_REMOTE'] ?? ''
  // Whatever the paths are written with, such a store is in `nix/store`.
  if (isAbsolute(remote)) return { storeDir, directory: join(remote, DEFAULT_STORE_DIR), stateDir: join(remote, '/nix/var/nix') }
  if (remote !== '' && remote !== 'auto' && remote !== 'local' && remote !== 'daemon') return { storeDir, directory: null, stateDir: null }
  return { storeDir, directory: storeDir, stateDir: env['NIX_STATE_DIR'] ?? '/nix/var/nix' }
}

/** Whether there is a store; true for one that is not a directory of this machine, since only asking it can tell. */
export async function storeExists({ directory }: StoreLocation): Promise<boolean> {
  if (directory === null) return true
  try {
    return (await stat(directory)).isDirectory()
  } catch {
    return false
  }
}

/** Whether this user reaches the store's database, or its daemon, or a store that is still without either. */
export async function mayWrite({ directory, stateDir }: StoreLocation, socket: string | undefined): Promise<boolean> {
  if (directory === null || stateDir === null) return true
  const database = join(stateDir, 'db')
  if (await canAccess(socket ?? join(stateDir, 'daemon-socket', 'socket'), READ_WRITE)) return true
  return await canAccess(await canAccess(database, constants.F_OK) ? database : directory, READ_WRITE)
}

/**
 * The socket of the daemon through which Nix itself would reach the store; null where it would open it by itself, or start something else
 * (nix: openStore in src/libstore/store-registration.cc).
 */
export async function daemonSocket(store: string | undefined, env: Readonly<Record<string, string | undefined>>, { stateDir }: StoreLocation): Promise<string | null> {
  const remote = store ?? env['NIX_REMOTE'] ?? ''
  if (remote.startsWith('unix:///')) return remote.slice('unix://'.length)
  if (stateDir === null || isAbsolute(remote) || remote === 'local') return null
  const socket = env['NIX_DAEMON_SOCKET_PATH'] ?? join(stateDir, 'daemon-socket', 'socket')
  if (remote === 'daemon') return socket
  return !await canAccess(stateDir, READ_WRITE) && await canAccess(socket, constants.F_OK) ? socket : null
}

const READ_WRITE = constants.R_OK | constants.W_OK

async function canAccess(path: string, mode: number): Promise<boolean> {
  try {
    await access(path, mode)
    return true
  } catch {
    return false
  }
}
