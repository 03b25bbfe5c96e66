import { connect } from 'node:net'
import { NarvikError, systemCode } from '../errors.ts'
import { drained, type StoreDaemon } from './execute.ts'
import { NixError } from './nix-error.ts'

/**
 * A connection to the Nix daemon of this machine. `nix-daemon --stdio` would pass everything on to it, but only between real pipes (it
 * splices), and a process that Node.js starts has sockets.
 */
export function openSocket(path: string, { signal }: { readonly signal?: AbortSignal | undefined } = {}): StoreDaemon {
  const socket = connect(path)
  const onAbort = (): void => { socket.destroy() }
  signal?.addEventListener('abort', onAbort)
  let failure: Error | undefined
  socket.on('error', error => { failure ??= error })
  return {
    output: socket,
    write: async (...parts) => {
      let hasRoom = true
      for (const part of parts) hasRoom = socket.write(part)
      if (!hasRoom && socket.writable) await drained(socket)
      if (!socket.writable) throw new NarvikError('nix-failed', `Cannot write to the Nix daemon at ${path}: found the connection closed, needed it open`)
    },
    stop: () => {
      signal?.removeEventListener('abort', onAbort)
      socket.destroy()
      const code = failure === undefined ? undefined : systemCode(failure)
      if (code === undefined) return Promise.resolve('nothing')
      const kind = code === 'EACCES' || code === 'EPERM' ? 'permission' : 'failed'
      return Promise.reject(new NixError(kind, `Cannot connect to the Nix daemon at ${path}: found ${code}, needed a daemon that this user may use`, { cause: failure }))
    },
  }
}
