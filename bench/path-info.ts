import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { NIX_SETTLE_MS } from '../src/limits.ts'
import { silentLogger } from '../src/log.ts'
import { removeTree } from '../src/nar/remove.ts'
import { NixCommand } from '../src/nix/command.ts'
import { Catalog } from '../src/store/catalog.ts'
import { PathInfos } from '../src/tasks/path-infos.ts'

export interface PathInfoResult {
  /** Median milliseconds of one question about one path. */
  readonly milliseconds: { readonly narvik: number, readonly nix: number }
  /** The 99th percentile of Narvik's. */
  readonly slowest: number
  /** Narvik's median over that of `nix path-info --json`. */
  readonly ratio: number
  readonly budget: { readonly milliseconds: number }
}

const PATHS = 200
const BUDGET_MS = 1

/** Measures the metadata of a path already known against `nix path-info --json`, in a store of its own. */
export async function benchPathInfo({ log = console.log, runs = 5 }: { log?: (line: string) => void, runs?: number } = {}): Promise<PathInfoResult> {
  const root = mkdtempSync(join(tmpdir(), 'narvik-bench-'))
  const env = makeEnvironment(root)
  const paths = plantPaths(root, env)
  const nix = new NixCommand({ logger: silentLogger }, { env })
  const catalog = Catalog.open(join(root, 'catalog.db'))
  try {
    const infos = new PathInfos({ nix, known: catalog.knownPaths, logger: silentLogger })
    // What has only just changed is not remembered.
    await setTimeout(2 * NIX_SETTLE_MS)
    await infos.get(paths)
    const own: number[] = []
    const theirs: number[] = []
    for (let run = 0; run < runs; run++) {
      for (const path of paths) own.push(await timed(async () => { await infos.get([path]) }))
      for (const path of paths.slice(0, 5)) theirs.push(await timed(() => { runProgram('nix', ['path-info', '--json', path], env) }))
    }
    return report(own, theirs, log)
  } finally {
    catalog.close()
    await removeTree(root)
  }
}

function report(own: readonly number[], theirs: readonly number[], log: (line: string) => void): PathInfoResult {
  const milliseconds = { narvik: percentile(own, 0.5), nix: percentile(theirs, 0.5) }
  const slowest = percentile(own, 0.99)
  log(`Metadata of a path already known: ${milliseconds.narvik.toFixed(3)} ms, 99 % within ${slowest.toFixed(3)} ms (budget ${BUDGET_MS} ms: ${milliseconds.narvik <= BUDGET_MS ? 'met' : 'missed'})`)
  log(`  ${(milliseconds.narvik / milliseconds.nix).toFixed(4)} × nix path-info --json (${milliseconds.nix.toFixed(1)} ms)`)
  return { milliseconds, slowest, ratio: milliseconds.narvik / milliseconds.nix, budget: { milliseconds: BUDGET_MS } }
}

async function timed(work: () => unknown): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

function percentile(times: readonly number[], share: number): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * share)] ?? 0
}

function makeEnvironment(root: string): Record<string, string> {
  mkdirSync(join(root, 'store'))
  return {
    NIX_STORE_DIR: join(root, 'store'), NIX_STATE_DIR: join(root, 'var'), NIX_LOG_DIR: join(root, 'log'), NIX_CONF_DIR: join(root, 'etc'),
    NIX_CONFIG: 'experimental-features = nix-command\nsubstitute = false\nbuild-users-group =', NIX_REMOTE: '', HOME: root,
  }
}

function plantPaths(root: string, env: Record<string, string>): string[] {
  const files = Array.from({ length: PATHS }, (_, index) => {
    const file = join(root, `image-${index}`)
    writeFileSync(file, `image ${index}`)
    return file
  })
  return runProgram('nix-store', ['--add', ...files], env).trim().split('\n')
}

function runProgram(program: string, args: readonly string[], env: Record<string, string>): string {
  return execFileSync(program, args, { env: { ...process.env, ...env }, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
}

if (import.meta.main) await benchPathInfo()
