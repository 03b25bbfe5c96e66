import { parseArgs } from 'node:util'
import { describeMachine, keep, load, type Machine } from '../record.ts'
import { linesOf, type Result } from '../result.ts'
import { requireTools } from '../tools.ts'
import { benchChain } from './chain.ts'
import { benchFlashCrowd } from './flash-crowd.ts'
import { benchKills } from './kills.ts'
import { benchForgery, benchLiar } from './liar.ts'
import { benchMemory } from './memory.ts'
import { CONGESTION } from './network.ts'
import { benchNextVersion } from './next-version.ts'
import { benchRates } from './rates.ts'
import { isFull, readSettings, type Settings } from './settings.ts'
import { lastWords, openWorkshop } from './workshop.ts'

const SCENARIOS: Readonly<Record<string, (settings: Settings, dir: string) => Promise<Result>>> = {
  'flash-crowd': benchFlashCrowd,
  'chain': benchChain,
  'liar': benchLiar,
  'forgery': benchForgery,
  'kills': benchKills,
  'next-version': benchNextVersion,
  'memory': benchMemory,
  'rates': benchRates,
}

const INTRODUCTION = 'Made by `npm run bench:swarm`: real daemons in network namespaces, behind links that `tc tbf` shapes. A ratio is Narvik over its reference.'

/**
 * Runs the scenarios that are named, or all, each in networks of its own; prints what each finds, and keeps it under bench/results/. A missed
 * budget is a finding and no failure, because figures depend on the machine.
 */
async function main(): Promise<void> {
  const { positionals } = parseArgs({ allowPositionals: true })
  const settings = readSettings(process.env)
  const names = positionals.length === 0 ? Object.keys(SCENARIOS) : positionals
  const unknown = names.find(name => SCENARIOS[name] === undefined)
  if (unknown !== undefined) throw new Error(`Cannot run ${unknown}: found no such scenario, needed some of ${Object.keys(SCENARIOS).join(', ')}`)
  const dir = openWorkshop()
  const machine = await describeMachine({ ...await versions(), settings: JSON.stringify(settings) })
  for (const name of names) await runOne(name, { settings, dir, machine })
}

/** One that fails is no reason not to run the next; the run as a whole then fails. */
async function runOne(name: string, { settings, dir, machine }: { settings: Settings, dir: string, machine: Machine }): Promise<void> {
  const before = load()
  try {
    const result = await SCENARIOS[name]?.(settings, dir)
    if (result === undefined) return
    console.log(linesOf(result).join('\n'))
    // A quick look is no figure to keep beside those of a whole run.
    const place = isFull(settings) ? `swarm-${name}` : `quick-swarm-${name}`
    await keep(place, INTRODUCTION, { ...machine, load: `${before} before, ${load()} after (one minute each)` }, [result])
  } catch (error) {
    console.error(`Cannot finish ${name}:`, error)
    for (const line of lastWords(dir)) console.error(line)
    process.exitCode = 1
  }
}

async function versions(): Promise<Record<string, string>> {
  const found = await requireTools(['iproute2', 'nginx-light', 'curl', 'python3-libtorrent', 'casync', 'e2fsprogs'])
  return { ...found, 'TCP congestion control': CONGESTION }
}

await main()
process.exit()
