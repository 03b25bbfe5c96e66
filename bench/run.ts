import { benchClosure } from './closure.ts'
import { benchHostToHost } from './host-to-host.ts'
import { benchInstall } from './install.ts'
import { benchMemory } from './memory.ts'
import { benchNarHash, type NarHashResult } from './nar-hash.ts'
import { benchPathInfo, type PathInfoResult } from './path-info.ts'
import { describeMachine, keep, load } from './record.ts'
import { linesOf, type Result } from './result.ts'
import { requireTools } from './tools.ts'

const INTRODUCTION = 'Made by `npm run bench`: medians of runs that take turns, after one that is not counted. A ratio is Narvik over its reference.'

/**
 * Runs every benchmark, prints what it finds, and keeps it under bench/results/. It fails where a reference is missing; a
 * missed budget is a finding and no failure, because figures depend on the machine.
 */
async function main(): Promise<void> {
  const { 'nginx-light': nginx = '', 'nix-bin': nix = '' } = await requireTools(['nginx-light', 'nix-bin'])
  const machine = await describeMachine({ nix, nginx })
  const loadBefore = load()
  const results: Result[] = []
  const add = (result: Result): void => {
    results.push(result)
    console.log(linesOf(result).join('\n'))
  }
  for (const each of await benchNarHash({ log: () => undefined })) add(ofNarHash(each))
  add(ofPathInfo(await benchPathInfo({ log: () => undefined })))
  for (const each of await benchHostToHost()) add(each)
  add(await benchClosure())
  add(await benchInstall())
  add(await benchMemory())
  await keep('latest', INTRODUCTION, { ...machine, load: `${loadBefore} before, ${load()} after (one minute each)` }, results)
}

function ofNarHash({ name, milliseconds, ratios, budget, parts }: NarHashResult): Result {
  return {
    name: `NAR hash of ${name}`,
    figures: Object.fromEntries(Object.entries(milliseconds).map(([figure, value]) => [figure, { value, unit: 'ms' as const }])),
    ratios: Object.entries(ratios).map(([against, ratio]) => ({ against, ratio, ...(budget.against === against && { budget: budget.ratio }) })),
    notes: [parts],
  }
}

function ofPathInfo({ milliseconds, slowest, ratio, budget }: PathInfoResult): Result {
  return {
    name: 'Metadata of a path already known',
    figures: { 'nix path-info --json': { value: milliseconds.nix, unit: 'ms' } },
    ratios: [{ against: 'nix path-info --json', ratio }, { against: `the budget of ${budget.milliseconds} ms`, ratio: milliseconds.narvik / budget.milliseconds, budget: 1 }],
    notes: [`narvik: ${milliseconds.narvik.toFixed(3)} ms, 99 % within ${slowest.toFixed(3)} ms`],
  }
}

await main()
