import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { loadConfig, SYSTEM_SOCKET } from '../config.ts'

/** The control socket to speak to: the one that is named, else that of the user's own daemon, else that of the host's. */
export function findSocket(named: string | undefined, env: NodeJS.ProcessEnv): string {
  if (named !== undefined) return resolve(named)
  const { socket } = loadConfig({ env })
  const isOwn = env.NARVIK_SOCKET !== undefined || existsSync(socket)
  return isOwn || !existsSync(SYSTEM_SOCKET) ? socket : SYSTEM_SOCKET
}
