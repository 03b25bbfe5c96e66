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

/** Where a package, an administrator and NixOS put the unit of the service. */
const UNITS = ['/etc/systemd/system/narvikd.service', '/lib/systemd/system/narvikd.service']

/** What to do where nobody answers on the socket of the host's service, if there is one; a daemon that somebody starts by hand would not be it. */
export function howToStart(socket: string, units: readonly string[] = UNITS): string | undefined {
  if (socket !== SYSTEM_SOCKET || !units.some(unit => existsSync(unit))) return undefined
  return 'Start it with: systemctl start narvikd; journalctl -u narvikd says why it is not up'
}
