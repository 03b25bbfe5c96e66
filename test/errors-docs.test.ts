import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { renderErrors } from '../scripts/docs.ts'
import { ERROR_CODES } from '../src/errors.ts'
import { tableRows } from './helpers/markdown.ts'

const page = readFileSync(new URL('../docs/ERRORS.md', import.meta.url), 'utf8')

describe('docs/ERRORS.md', () => {
  test('has every code with its exit code, its HTTP status and its meaning, and no other', () => {
    const documented = tableRows(page).map(([code = '', exit, http, meaning]) => [code, { exit: Number(exit), http: Number(http), meaning }])
    expect(Object.fromEntries(documented)).toEqual(ERROR_CODES)
    expect(documented).toHaveLength(Object.keys(ERROR_CODES).length)
  })

  test('names every exit code that there is', () => {
    const list = /what sort of failure it was: ([^]*)/.exec(page)?.[1] ?? ''
    const named = Array.from(list.matchAll(/(\d+) [a-z]/g), ([, exit]) => Number(exit))
    const used = new Set<number>([0, ...Object.values(ERROR_CODES).map(({ exit }) => exit)])
    expect(named).toEqual([...used].sort((a, b) => a - b))
  })

  test('is up to date: run node scripts/docs.ts', () => {
    expect(page).toBe(renderErrors())
  })
})
