import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { removeTree } from '../src/nar/remove.ts'
import { Host } from './host.ts'
import { plantDisk } from './plant.ts'
import type { Result } from './result.ts'

const MIB = 1024 * 1024
const SIZES = [256, 1024]
const BUDGET_MIB = 200

/** Registering a fetched image in a Nix store, beside `nix copy` of the same path from store to store; and the daemon's memory meanwhile. */
export async function benchInstall(): Promise<Result> {
  const figures: Record<string, { value: number, unit: 'ms' | 'MiB' }> = {}
  const peaks: number[] = []
  let ratio = NaN
  for (const size of SIZES) {
    const { install, copy, peak } = await measure(size * MIB)
    figures[`${size} MiB, narvik install`] = { value: install, unit: 'ms' }
    figures[`${size} MiB, nix copy`] = { value: copy, unit: 'ms' }
    figures[`${size} MiB, the daemon at its peak`] = { value: peak, unit: 'MiB' }
    peaks.push(peak)
    ratio = install / copy
  }
  return {
    name: 'Registering a verified image in the Nix store',
    figures,
    ratios: [{ against: 'nix copy from one store to another, of the largest', ratio }, { against: `${BUDGET_MIB} MiB`, ratio: Math.max(...peaks) / BUDGET_MIB, budget: 1 }],
    notes: ["the peak is that of a new daemon, without Nix's own process; it is what the kernel calls VmHWM"],
  }
}

/** Two stores whose paths are written alike, as on two hosts: the second one is below a root of its own. */
async function measure(size: number): Promise<{ install: number, copy: number, peak: number }> {
  const dir = await mkdtemp(join(tmpdir(), 'narvik-bench-install-'))
  const sender = { ...environment(dir), NIX_REMOTE: '' }
  const receiver = { ...environment(dir), NIX_REMOTE: join(dir, 'receiver') }
  const hosts: Host[] = []
  try {
    for (const name of ['store', 'receiver', 'copy']) await mkdir(join(dir, name))
    plantDisk(join(dir, 'disk'), size)
    const { stdout: path } = await execa('nix', ['store', 'add-path', '--name', 'image', join(dir, 'disk')], { env: sender })
    await execa('nix', ['store', 'ping'], { env: receiver })
    const narHash = await fetch(path, { sender, receiver, dir: join(dir, 'host') })
    const host = await Host.start({ env: receiver, dir: join(dir, 'host') })
    hosts.push(host)
    const install = await timed(() => host.client.install({ ref: narHash }))
    const { peak } = await host.usage()
    const copy = await timed(() => execa('nix', ['copy', '--no-check-sigs', '--to', join(dir, 'copy'), path], { env: sender }))
    return { install, copy, peak }
  } finally {
    await Promise.all(hosts.map(host => host.stop()))
    await removeTree(dir)
  }
}

/** The path as an image of a second host, which has ended; resolves with its NAR hash. */
async function fetch(path: string, { sender, receiver, dir }: { readonly sender: Record<string, string>, readonly receiver: Record<string, string>, readonly dir: string }): Promise<string> {
  const provider = await Host.start({ env: sender })
  const host = await Host.start({ env: receiver, dir, bootstrap: [provider] })
  try {
    await host.untilPeers(1)
    const { narHash } = await provider.client.import({ path })
    await host.client.fetch({ ref: narHash })
    return narHash
  } finally {
    await host.kill('SIGTERM')
    await provider.stop()
  }
}

function environment(dir: string): Record<string, string> {
  return {
    NIX_STORE_DIR: join(dir, 'store'), NIX_STATE_DIR: join(dir, 'var'), NIX_LOG_DIR: join(dir, 'log'), NIX_CONF_DIR: join(dir, 'etc'),
    NIX_CONFIG: 'experimental-features = nix-command\nsubstitute = false\nsandbox = false\nbuild-users-group =',
    HOME: join(dir, 'home'), XDG_CACHE_HOME: join(dir, 'xdg'),
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

if (import.meta.main) {
  const { linesOf } = await import('./result.ts')
  console.log(linesOf(await benchInstall()).join('\n'))
}
