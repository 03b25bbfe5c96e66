import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { renderLimits } from '../scripts/docs.ts'
import * as limits from '../src/limits.ts'
import { tableRows } from './helpers/markdown.ts'

const page = readFileSync(new URL('../docs/LIMITS.md', import.meta.url), 'utf8')

describe('docs/LIMITS.md', () => {
  const documented = new Map(tableRows(page).map(([name = '', value = '', meaning = '']) => [name, { value, meaning }]))

  test('has the limits of src/limits.ts and no other', () => {
    expect([...documented.keys()].sort()).toEqual(Object.keys(limits).sort())
  })

  test('has the value of each', () => {
    const values = Array.from(documented, ([name, { value }]) => [name, Number(value.split(' ')[0])])
    expect(Object.fromEntries(values)).toEqual({ ...limits })
  })

  test('says of each what it means', () => {
    for (const [name, { meaning }] of documented) expect(meaning, name).toMatch(/^[A-Z].{15,}\.$/)
  })

  test('is up to date: run node scripts/docs.ts', () => {
    expect(page).toBe(renderLimits())
  })
})
