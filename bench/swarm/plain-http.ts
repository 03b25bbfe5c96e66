import { once } from 'node:events'
import { mkdtemp } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { startNginx } from '../nginx.ts'
import { usageOf } from '../usage.ts'
import type { Crowd, CrowdSystem } from './crowd.ts'
import type { Station } from './network.ts'

const PORT = 8080

/** The naive star: everybody downloads the whole from the seed's web server. */
export const plainHttp: CrowdSystem = { name: 'star: nginx, curl', prepare }

async function prepare([seed, ...others]: readonly Station[], file: string, parent: string): Promise<Crowd> {
  if (seed === undefined) throw new Error('Cannot serve without a station')
  const dir = await mkdtemp(join(parent, 'http-'))
  const server = await serveFiles(seed, { dir, root: dirname(file) })
  let spent = 0
  return {
    fetches: others.map(station => async () => {
      const { cpuSeconds } = await runMetered(station, 'curl', '--silent', '--fail', '--output', join(dir, `by-${station.addresses.join('+')}`), `${server.url}/${basename(file)}`)
      spent += cpuSeconds
    }),
    usage: async () => {
      const { peak, cpuSeconds } = await usageOf(server.pid)
      return { peak, cpuSeconds: cpuSeconds + spent }
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
}

/** A web server at a station that serves a directory. */
export async function serveFiles(station: Station, { dir, root }: { dir: string, root: string }): Promise<{ pid: number, url: string, stop: () => Promise<void> }> {
  const [address = ''] = station.addresses
  const url = `http://${address}:${PORT}`
  const answers = (): Promise<boolean> => station.namespace.run('curl', '--silent', '--output', '/dev/null', url).then(() => true, () => false)
  const nginx = await startNginx({ dir: join(dir, 'nginx'), root, listen: `${address}:${PORT}`, via: station.namespace.via, answers })
  const stop = async (): Promise<void> => {
    if (nginx.exitCode !== null) return
    nginx.kill('SIGTERM')
    await once(nginx, 'exit')
  }
  return { pid: nginx.pid ?? 0, url, stop }
}

/** Runs a command at a station to its end; resolves with the CPU time of it and of all that it has started. @throws where it fails. */
export async function runMetered(station: Station, program: string, ...args: string[]): Promise<{ cpuSeconds: number }> {
  // The shell's own file says what the children took for whom it has waited, in ticks of 10 ms.
  const stat = await station.namespace.run('bash', '-c', '"$@" >&2 && cat /proc/$$/stat', 'metered', program, ...args)
  const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(13, 15).map(Number)
  return { cpuSeconds: ((user ?? 0) + (system ?? 0)) / 100 }
}
