import { lstat, mkdir, stat, unlink } from 'node:fs/promises'
import { connect, type Server } from 'node:net'
import { dirname } from 'node:path'
import { fromSystemError, NarvikError, systemCode } from '../errors.ts'

/** Bytes of a socket's path that the kernel takes (`sun_path`, less its final NUL). */
const MAX_SOCKET_PATH_BYTES = 107

/**
 * Makes `server` listen on the Unix socket `path`, in a directory that no other user can write; it is made, 0700, if it is
 * absent. What a dead daemon left there is replaced.
 * @throws NarvikError `in-use` where a daemon answers on it, `conflict` where the path is no socket, `refused` where the
 * directory is open to others.
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw new NarvikError('invalid-config', `Cannot make the control socket ${path}: found ${Buffer.byteLength(path)} bytes of path, needed at most ${MAX_SOCKET_PATH_BYTES}`, { hint: 'Name a shorter one with --socket' })
  }
  const mode = await prepareDirectory(dirname(path))
  await clearPath(path)
  await bind(server, path, isOpenToGroup(mode) ? 0o117 : 0o177)
}

/**
 * Makes `server` listen on a TCP port.
 * @throws NarvikError `in-use`, `io-error`.
 */
export function listenOnPort(server: Server, { host, port }: { readonly host: string, readonly port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => { reject(fromSystemError(error, `listen for the page on ${host} port ${port}`)) }
    server.once('error', failed)
    server.listen(port, host, () => { server.off('error', failed); resolve() })
  })
}

async function prepareDirectory(directory: string): Promise<number> {
  const action = `make the control socket in ${directory}`
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const { mode, uid } = await stat(directory)
    if ((mode & 0o022) !== 0) {
      throw new NarvikError('refused', `Cannot ${action}: found a directory that others can write (mode ${(mode & 0o7777).toString(8)}), needed one that only its owner can`, { hint: 'Make a directory with mode 0700 and name a socket in it with --socket' })
    }
    if (uid !== 0 && uid !== process.geteuid?.()) {
      throw new NarvikError('refused', `Cannot ${action}: found a directory of user ${uid}, needed one of the daemon's own user or of root`)
    }
    return mode
  } catch (error) {
    throw fromSystemError(error, action)
  }
}

/** A directory that lets its group in, and nobody else, says who may speak to the daemon. */
function isOpenToGroup(mode: number): boolean {
  return (mode & 0o017) === 0o010
}

async function clearPath(path: string): Promise<void> {
  try {
    const found = await lstat(path)
    if (!found.isSocket()) {
      throw new NarvikError('conflict', `Cannot make the control socket ${path}: found something that is no socket, needed a free path`, { hint: 'Move it away, or name another path with --socket' })
    }
    if (await isAlive(path)) {
      throw new NarvikError('in-use', `Cannot make the control socket ${path}: found a daemon that answers on it, needed a free path`, { hint: 'Stop that daemon, or name another socket with --socket' })
    }
    await unlink(path)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw fromSystemError(error, `make the control socket ${path}`)
  }
}

/** Whether a process listens; only a refused connection proves that none does. */
function isAlive(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(path)
    probe.once('connect', () => { probe.destroy(); resolve(true) })
    probe.once('error', error => { resolve(!['ECONNREFUSED', 'ENOENT'].includes(systemCode(error) ?? '')) })
  })
}

/** The mask is in force for the one call that makes the file, so there is no moment in which others could open it. */
function bind(server: Server, path: string, mask: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => { reject(fromSystemError(error, `make the control socket ${path}`)) }
    server.once('error', failed)
    const before = process.umask(mask)
    try {
      server.listen(path, () => { server.off('error', failed); resolve() })
    } finally {
      process.umask(before)
    }
  })
}
