import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

describe('docs/SECURITY.md', () => {
  const rows = [...readFileSync('docs/SECURITY.md', 'utf8').matchAll(/^\| (?!threat|---)(.*) \|$/gm)].map(([, row = '']) => row.split(' | '))

  test.each(rows.map(([threat = '', ...rest]) => [threat, rest] as const))('%s: has a cost, a guard and a test that is there', (_threat, [cost, guard, tests]) => {
    expect(cost).toBeTruthy()
    expect(guard).toBeTruthy()
    const files = [...(tests ?? '').matchAll(/`([^`]+)`/g)].map(([, file = '']) => file)
    expect(files.length).toBeGreaterThan(0)
    expect(files.filter(file => !existsSync(file))).toEqual([])
  })
})
