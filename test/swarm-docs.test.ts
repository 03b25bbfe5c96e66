import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { documentOf } from '../bench/simulation/document.ts'
import { plotOf } from '../bench/simulation/plot.ts'
import { type Row, SCENARIOS, simulate } from '../bench/simulation/scenarios.ts'

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8')
const rows = JSON.parse(read('../bench/results/simulation.json')) as Row[]
const OUTDATED = 'a swarm goes otherwise than docs/SWARM.md says; `npm run simulate -- 8 16 32 64` brings it up to date'

describe('docs/SWARM.md', () => {
  test('and its plot have what the simulation has found', () => {
    expect(read('../docs/SWARM.md')).toBe(documentOf(rows))
    expect(read('../docs/swarm.svg')).toBe(plotOf(rows))
  })

  test('has every row', () => {
    expect(rows.map(({ hosts, event, mebibytes }) => ({ hosts, event, mebibytes }))).toEqual(SCENARIOS)
  })

  test('has rows that the simulation finds again', () => {
    const [smallest] = rows
    if (smallest === undefined) throw new Error('there are no rows')
    expect(simulate(smallest), OUTDATED).toEqual(smallest)
  })
})
