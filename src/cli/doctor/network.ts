import { access, constants, stat } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { isNarvikError, messageOf, systemCode } from '../../errors.ts'
import { fleetFingerprint, readFleetKey } from '../../fleet-key.ts'
import { plural } from '../format.ts'
import { found, type Finding, type Host } from './finding.ts'

/** Milliseconds for a connection to a port of this host. */
const CONNECT_TIMEOUT_MS = 2000

export async function checkFleetKey({ config: { fleetKeyFile, allowOpen, listen }, status, env }: Host): Promise<Finding> {
  const isOpen = listen.some(address => !isLoopback(address))
  if (fleetKeyFile === null) {
    if (status?.fleet === true) return found('fleet key', 'ok', 'the daemon has one')
    if (isOpen && !allowOpen) return found('fleet key', 'fail', 'none, and listen goes beyond loopback', 'Make one: narvik fleet create /etc/narvik/fleet.key; then name it as fleet_key_file')
    if (isOpen) return found('fleet key', 'warn', 'none: whoever reaches the port can fetch what is here', 'Make one with `narvik fleet create FILE`, and take allow_open out')
    return found('fleet key', 'warn', 'none: this host is in no fleet', 'Copy the key from a host of the fleet, or make one with: narvik fleet create FILE')
  }
  try {
    return found('fleet key', 'ok', `${fleetKeyFile}, fingerprint ${fleetFingerprint(await readFleetKey(fleetKeyFile))}`)
  } catch (error) {
    // Another user than the daemon's may not read it, and should not.
    if (status?.fleet === true && systemCode(isNarvikError(error) ? error.cause : error) === 'EACCES') return found('fleet key', 'ok', `the daemon has it; ${env.USER ?? 'this user'} may not read it`)
    return found('fleet key', 'fail', messageOf(error), isNarvikError(error) ? error.hint ?? null : null)
  }
}

/** Where systemd puts what it gives to one service alone, whoever it belongs to. */
const CREDENTIALS = '/run/credentials/'

/** Keys are for their owner only, and mostly it is root who makes them: the daemon must be the one whom they belong to. */
export async function checkKeyOwners({ config, status }: Host): Promise<Finding[]> {
  const dataDir = status?.dataDir ?? config.dataDir
  const daemon = await ownerOf(dataDir)
  const files = [config.fleetKeyFile, ...config.acceptFleetKeyFiles].filter(file => file !== null).filter(file => !file.startsWith(CREDENTIALS))
  const findings = await Promise.all(files.map(async file => {
    const owner = await ownerOf(file)
    if (owner === undefined && config.acceptFleetKeyFiles.includes(file)) return found('fleet key', 'fail', `${file}, which accept_fleet_key_files names, is not there`, 'Copy it from a host of the fleet, or take it out of accept_fleet_key_files')
    // Root reads everything, and of what isn't there yet nothing can be said.
    if (owner === undefined || daemon === undefined || daemon === 0 || owner === daemon) return undefined
    return found('fleet key', 'fail', `${file} belongs to another user than ${dataDir}: the daemon can not read it`, `chown --reference=${dataDir} ${file}`)
  }))
  return findings.filter(finding => finding !== undefined)
}

async function ownerOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).uid
  } catch {
    return undefined
  }
}

export async function checkPorts({ config, status }: Host): Promise<Finding[]> {
  const addresses = status?.addresses ?? config.listen
  const ofPeers = addresses.map(async address => {
    const [, , host = '', , port = '0'] = address.split('/')
    return status === undefined ? tryToListen(address, host, Number(port)) : tryToConnect(address, host, Number(port))
  })
  // Without these the daemon does not start either; one that runs has them, and may have been told others than this shell knows.
  const others = (['metrics', 'page'] as const).map(async name => {
    const { host, port } = config[name]
    return status !== undefined || port === null ? [] : [await tryToListen(`${name}.port ${port}`, host, port)]
  })
  const findings = [...await Promise.all(ofPeers), ...(await Promise.all(others)).flat()]
  const beyond = addresses.some(address => !isLoopback(address))
  return beyond ? findings : [...findings, found('ports', 'warn', 'only loopback is listened on: no other host can reach this one', 'Set listen, for instance to ["/ip4/0.0.0.0/tcp/4650"], with a fleet key')]
}

export function checkDht({ status, config: { bootstrap, mdns } }: Host): Finding {
  if (status === undefined) return found('dht', 'warn', 'not known while the daemon is down')
  if (status.dhtPeers > 0) return found('dht', 'ok', `${plural(status.dhtPeers, 'peer')} in the routing table, ${plural(status.peers, 'connection')}`)
  const next = bootstrap.length === 0 && !mdns ? 'Name a peer in bootstrap, or turn mdns on' : 'Check that a peer of bootstrap is up, has the same fleet key, and that its port can be reached from here'
  return found('dht', 'warn', status.peers === 0 ? 'no peer is connected: nothing can be found' : 'peers are connected, but none answers in the DHT', next)
}

export async function checkNix({ config: { nix }, status, env }: Host): Promise<Finding> {
  if (!nix.enabled) return found('nix', 'ok', 'turned off in the config')
  if (status !== undefined) {
    return status.nix.available ? found('nix', 'ok', status.nix.detail) : found('nix', 'warn', status.nix.detail, 'Install Nix, name its directory as nix.bin_dir, or set nix.enabled = false')
  }
  const directories = nix.binDir === null ? (env.PATH ?? '').split(delimiter).filter(directory => directory !== '') : [nix.binDir]
  for (const directory of directories) {
    if (await mayRun(join(directory, 'nix'))) return found('nix', 'ok', join(directory, 'nix'))
  }
  return found('nix', 'warn', `no nix program in ${nix.binDir ?? 'any directory of PATH'}: store paths can not be looked up`, 'Install Nix, name its directory as nix.bin_dir, or set nix.enabled = false')
}

function isLoopback(address: string): boolean {
  return /^\/(ip4\/127\.|ip6\/::1\/)/.test(address)
}

/** Whether a daemon could listen there; nothing listens now. */
function tryToListen(address: string, host: string, port: number): Promise<Finding> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', error => {
      resolve(found('ports', 'fail', `${address}: ${messageOf(error)}`, systemCode(error) === 'EADDRINUSE' ? `See who has it: ss -ltnp 'sport = :${port}'` : 'Listen on an address of this host'))
    })
    server.listen(port, host, () => { server.close(() => { resolve(found('ports', 'ok', `${address} is free`)) }) })
  })
}

function tryToConnect(address: string, host: string, port: number): Promise<Finding> {
  return new Promise(resolve => {
    const socket = connect({ host, port, timeout: CONNECT_TIMEOUT_MS })
    const end = (finding: Finding): void => {
      socket.destroy()
      resolve(finding)
    }
    const failed = (why: string): void => { end(found('ports', 'fail', `${address}: ${why}`, 'Look at the firewall of this host')) }
    socket.once('connect', () => { end(found('ports', 'ok', `${address} answers`)) })
    socket.once('timeout', () => { failed('no answer') })
    socket.once('error', error => { failed(messageOf(error)) })
  })
}

async function mayRun(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(() => true, () => false)
}
