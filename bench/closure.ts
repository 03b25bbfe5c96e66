import { Host, startPair } from './host.ts'
import { BinaryCache } from './binary-cache.ts'
import { median, type Result } from './result.ts'

const SMALL = 300
const LARGE = 3
const BUDGET_MIB = 200

/** Directories of eight files, each of which refers to two before it, and a few large files: no nixpkgs is needed for that. */
const EXPRESSION = `
  let
    make = name: script: derivation { inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "PATH=/usr/bin:/bin\\n\${script}" ]; };
    large = map (n: make "large-\${toString n}" "head -c 100000000 /dev/urandom > $out") (builtins.genList (n: n) ${LARGE});
    small = builtins.genList (n: make "small-\${toString n}" ''
      mkdir -p $out/lib
      for file in 1 2 3 4 5 6 7 8; do head -c $((file * 1500 + \${toString n})) /dev/urandom > $out/lib/$file; done
      echo \${if n == 0 then toString large else "\${builtins.elemAt small (n / 2)} \${builtins.elemAt small (n - 1)}"} > $out/needs
    '') ${SMALL};
  in builtins.elemAt small ${SMALL - 1}`

/**
 * A closure of many small paths and a few large ones from daemon to daemon, beside `nix copy` of the same closure from a
 * binary cache; turn by turn, after one of each.
 */
export async function benchClosure({ runs = 3 }: { runs?: number } = {}): Promise<Result> {
  const cache = await BinaryCache.serveBuilt(EXPRESSION)
  try {
    const paths = (await cache.closure()).length
    const rounds: Round[] = []
    for (let run = 0; run <= runs; run++) {
      const round = { ...await moveClosure(cache), copy: await cache.copy() }
      if (run > 0) rounds.push(round)
    }
    return report(rounds, paths)
  } finally {
    await cache.stop()
  }
}

/** Milliseconds, and MiB at the peak. */
interface Round {
  readonly import: number
  readonly fetch: number
  readonly copy: number
  readonly importing: number
  readonly fetching: number
}

/** Between two new daemons, since a second import or fetch would find everything here. */
async function moveClosure({ storePath, env }: BinaryCache): Promise<Omit<Round, 'copy'>> {
  const [provider, receiver] = await startPair({ env })
  try {
    const started = performance.now()
    const { narHash } = await provider.client.import({ path: storePath, closure: true })
    const imported = performance.now()
    await receiver.client.fetch({ ref: narHash, closure: true })
    const fetched = performance.now()
    return { import: imported - started, fetch: fetched - imported, importing: await peak(provider), fetching: await peak(receiver) }
  } finally {
    await Promise.all([provider.stop(), receiver.stop()])
  }
}

async function peak(host: Host): Promise<number> {
  return (await host.usage()).peak
}

function report(rounds: readonly Round[], paths: number): Result {
  const of = (figure: keyof Round): number => median(rounds.map(round => round[figure]))
  const most = Math.max(...rounds.flatMap(({ importing, fetching }) => [importing, fetching]))
  const each = (figure: keyof Round): string => `${(of(figure) / paths).toFixed(1)} ms`
  return {
    name: `A closure of ${paths} store paths, ${LARGE} of them of 100 MB`,
    figures: {
      'narvik import --closure': { value: of('import'), unit: 'ms' },
      'narvik fetch --closure': { value: of('fetch'), unit: 'ms' },
      'nix copy': { value: of('copy'), unit: 'ms' },
      'importing and serving, at the peak': { value: of('importing'), unit: 'MiB' },
      'fetching, at the peak': { value: of('fetching'), unit: 'MiB' },
    },
    ratios: [
      { against: 'nix copy from a plain-HTTP binary cache (import)', ratio: of('import') / of('copy'), budget: 1 },
      { against: 'nix copy from a plain-HTTP binary cache (fetch)', ratio: of('fetch') / of('copy'), budget: 1 },
      { against: `${BUDGET_MIB} MiB`, ratio: most / BUDGET_MIB, budget: 1 },
    ],
    notes: [`for each path: import ${each('import')}, fetch ${each('fetch')}, nix copy ${each('copy')}`],
  }
}

if (import.meta.main) {
  const { linesOf } = await import('./result.ts')
  console.log(linesOf(await benchClosure({ runs: 1 })).join('\n'))
}
