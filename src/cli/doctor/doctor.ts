import { checkConfig, type Config } from '../../config.ts'
import type { PublishedNameJson, StatusJson } from '../../control/api.ts'
import type { ControlClient } from '../../control/client.ts'
import { isNarvikError, messageOf, NarvikError } from '../../errors.ts'
import { plural } from '../format.ts'
import type { Action } from '../outcome.ts'
import { table, type Cell, type Paint } from '../table.ts'
import { found, type Finding, type Host } from './finding.ts'
import { checkNames } from './names.ts'
import { checkDht, checkFleetKey, checkKeyOwners, checkNix, checkPorts } from './network.ts'
import { checkClock, checkDisk, checkPermissions } from './place.ts'

/** Looks at everything that a daemon needs of this host; without a daemon as far as that can be seen. */
export function doctor(env: NodeJS.ProcessEnv): Action {
  return async ({ client }) => {
    const { config, findings } = lookAtConfig(env)
    const daemon = await lookAtDaemon(client)
    const host: Host = { config, status: daemon.status, env }
    const [key, owners, ports, clock, disk, permissions, nix] = await Promise.all([checkFleetKey(host), checkKeyOwners(host), checkPorts(host), checkClock(), checkDisk(host), checkPermissions(host), checkNix(host)])
    const all = [...findings, daemon.finding, key, ...owners, ...ports, checkDht(host), ...checkNames(daemon.names), clock, disk, ...permissions, nix]
    const failed = all.filter(({ verdict }) => verdict === 'fail').length
    const failure = new NarvikError('unhealthy', `Cannot vouch for this host: found ${plural(failed, 'check')} that failed, needed none`, { hint: 'Each failed check says what to do' })
    return { json: { healthy: failed === 0, findings: all }, text: paint => view(all, paint), ...(failed === 0 ? {} : { failure }) }
  }
}

function lookAtConfig(env: NodeJS.ProcessEnv): { readonly config: Config, readonly findings: Finding[] } {
  try {
    const { config, file, problems } = checkConfig({ env })
    const bad = problems.map(({ message, hint = null }) => found('config', 'fail', message, hint ?? 'Correct it; docs/CONFIG.md has every key'))
    return { config, findings: bad.length > 0 ? bad : [found('config', 'ok', file === null ? 'no file, the defaults are in force' : `${file} has no mistakes`)] }
  } catch (error) {
    // The other checks go on with what would be in force without the file.
    const { config } = checkConfig({ env, file: '/dev/null' })
    return { config, findings: [found('config', 'fail', messageOf(error), 'Correct the file; `narvik config check` says whether it is good')] }
  }
}

async function lookAtDaemon(client: () => ControlClient): Promise<{ readonly status?: StatusJson, readonly names?: readonly PublishedNameJson[], readonly finding: Finding }> {
  try {
    const [status, names] = await Promise.all([client().status(), client().names()])
    return { status, names, finding: found('daemon', 'ok', `version ${status.version} answers on ${status.socket}`) }
  } catch (error) {
    if (isNarvikError(error) && error.code === 'invalid-config') return { finding: found('daemon', 'warn', 'not asked: the configuration, which says where its socket is, has a mistake', 'Correct it, or name the socket with --socket') }
    const hint = isNarvikError(error) ? error.hint : undefined
    return { finding: found('daemon', 'fail', messageOf(error), hint ?? 'Start it: systemctl start narvikd, or narvik daemon') }
  }
}

function view(findings: readonly Finding[], paint: Paint): string {
  const styles = { ok: 'green', warn: 'yellow', fail: 'red' } as const
  const rows = findings.map(({ check, verdict, detail }): Cell[] => [{ text: verdict, style: styles[verdict] }, check, detail])
  const todo = findings.filter(({ hint }) => hint !== null).map(({ check, hint }) => `  ${check}: ${hint ?? ''}`)
  return [table(['VERDICT', 'CHECK', 'FOUND'], rows, paint), ...(todo.length === 0 ? [] : [`What to do:\n${todo.join('\n')}`])].join('\n\n')
}
