import { readFile, writeFile } from 'node:fs/promises'
import { documentOf } from './document.ts'
import { plotOf } from './plot.ts'
import { type Row, type Scenario, SCENARIOS, simulate, SMALL } from './scenarios.ts'

const ROWS = new URL('../results/simulation.json', import.meta.url)
const DOCUMENT = new URL('../../docs/SWARM.md', import.meta.url)
const PLOT = new URL('../../docs/swarm.svg', import.meta.url)

/** Runs the scenarios that are named, such as `8`, `64:churn` or `125/256`, or all; prints what each finds, and puts it into the document. The others' rows stay. */
async function main(names: readonly string[]): Promise<void> {
  const chosen = names.length === 0 ? SCENARIOS : names.map(scenarioOf)
  const rows = await readRows()
  for (const scenario of chosen) {
    const before = performance.now()
    const row = simulate(scenario)
    console.log(`${nameOf(scenario)}: ${JSON.stringify(row)}, in ${((performance.now() - before) / 1000).toFixed(0)} s`)
    rows.set(nameOf(scenario), row)
    await writeAll(SCENARIOS.flatMap(each => rows.get(nameOf(each)) ?? []))
  }
}

async function readRows(): Promise<Map<string, Row>> {
  const text = await readFile(ROWS, 'utf8').catch(() => '[]')
  return new Map((JSON.parse(text) as Row[]).map(row => [nameOf(row), row]))
}

async function writeAll(rows: readonly Row[]): Promise<void> {
  await writeFile(ROWS, `[\n${rows.map(row => `  ${JSON.stringify(row)}`).join(',\n')}\n]\n`)
  await writeFile(DOCUMENT, documentOf(rows))
  await writeFile(PLOT, plotOf(rows))
}

function scenarioOf(name: string): Scenario {
  const found = SCENARIOS.find(scenario => nameOf(scenario) === name)
  if (found === undefined) throw new Error(`Cannot simulate ${name}: found no such scenario, needed some of ${SCENARIOS.map(nameOf).join(', ')}`)
  return found
}

function nameOf({ hosts, event, mebibytes }: Scenario): string {
  return `${hosts}${event === 'none' ? '' : `:${event}`}${mebibytes === SMALL ? '' : `/${mebibytes}`}`
}

await main(process.argv.slice(2))
