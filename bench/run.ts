import { mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { execa } from 'execa'
import { requireTools } from './binary-cache.ts'
import { benchHostToHost } from './host-to-host.ts'
import { benchMemory } from './memory.ts'
import { benchNarHash, type NarHashResult } from './nar-hash.ts'
import { benchPathInfo, type PathInfoResult } from './path-info.ts'
import { linesOf, type Result } from './result.ts'

/**
 * Runs every benchmark, prints what it finds, and keeps it under bench/results/. It fails where a reference is missing; a
 * missed budget is a finding and no failure, because figures depend on the machine.
 */
async function main(): Promise<void> {
  await requireTools()
  const machine = await describeMachine()
  const loadBefore = loadavg()[0] ?? 0
  const results: Result[] = []
  const add = (result: Result): void => {
    results.push(result)
    console.log(linesOf(result).join('\n'))
  }
  for (const each of await benchNarHash({ log: () => undefined })) add(ofNarHash(each))
  add(ofPathInfo(await benchPathInfo({ log: () => undefined })))
  for (const each of await benchHostToHost()) add(each)
  add(await benchMemory())
  await keep({ ...machine, load: `${loadBefore.toFixed(1)} before, ${(loadavg()[0] ?? 0).toFixed(1)} after (one minute each)` }, results)
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

async function describeMachine(): Promise<Record<string, string>> {
  const { stdout: nix } = await execa('nix', ['--version'])
  const { stderr: nginx } = await execa('nginx', ['-v'])
  const { stdout: commit } = await execa('git', ['describe', '--always', '--dirty'], { cwd: import.meta.dirname, reject: false })
  return {
    date: new Date().toISOString(),
    commit,
    cpu: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
    memory: `${(totalmem() / 1024 ** 3).toFixed(0)} GiB`,
    kernel: release(),
    node: process.version,
    nix,
    nginx: nginx.replace('nginx version: ', ''),
  }
}

async function keep(machine: Record<string, string>, results: readonly Result[]): Promise<void> {
  const dir = new URL('results/', import.meta.url)
  await mkdir(dir, { recursive: true })
  await writeFile(new URL('latest.json', dir), `${JSON.stringify({ machine, results }, undefined, 2)}\n`)
  await writeFile(new URL('latest.md', dir), markdown(machine, results))
}

function markdown(machine: Record<string, string>, results: readonly Result[]): string {
  const facts = Object.entries(machine).map(([fact, value]) => `- ${fact}: ${value}`)
  const sections = results.map(result => {
    const [name = '', ...lines] = linesOf(result)
    return [`## ${name}`, '', ...lines.map(line => `- ${line.trim()}`)].join('\n')
  })
  return [
    '# Benchmarks', '', 'Made by `npm run bench`: medians of runs that take turns, after one that is not counted. A ratio is Narvik over its reference.', '',
    ...facts, '', sections.join('\n\n'), '',
  ].join('\n')
}

await main()
