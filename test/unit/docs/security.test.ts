import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'

const THREATS = 'docs/THREATS.md'

/** What stands in backticks. */
function quoted(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, inside = '']) => inside)
}

describe(THREATS, () => {
  const text = readFileSync(THREATS, 'utf8')
  const rows = [...text.matchAll(/^\| (?!threat|---)(.*) \|$/gm)].map(([, row = '']) => row.split(' | '))

  test.each(rows.map(([threat = '', ...rest]) => [threat, rest] as const))('%s: has a cost, a guard in a source file that is there, and a test that is there', (_threat, [cost = '', guard = '', tests = '', ...more]) => {
    expect(more).toEqual([])
    expect(cost).toBeTruthy()
    const sources = quoted(guard).filter(file => file.startsWith('src/'))
    const files = quoted(tests)
    expect(sources.length).toBeGreaterThan(0)
    expect(files.length).toBeGreaterThan(0)
    expect([...sources, ...files].filter(file => !existsSync(file))).toEqual([])
    expect(files.filter(file => !file.endsWith('.test.ts'))).toEqual([])
  })

  test('names every test of hostile peers', () => {
    expect(globSync('test/integration/hostile-*.test.ts').filter(file => !text.includes(`\`${file}\``))).toEqual([])
  })
})

/** The names under which headings can be linked to. */
function anchorsOf(file: string): string[] {
  return [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => heading.toLowerCase().replace(/[^\w\- ]/g, '').replaceAll(' ', '-'))
}

test.each(['SECURITY.md', THREATS, 'docs/TRUST.md'])('every link of %s leads somewhere', page => {
  for (const [, link = ''] of readFileSync(page, 'utf8').matchAll(/\]\((?!https?:)([^)]+)\)/g)) {
    const [file = '', anchor] = link.split('#')
    const target = join(dirname(page), file)
    expect(existsSync(target), link).toBe(true)
    if (anchor !== undefined) expect(anchorsOf(target), link).toContain(anchor)
  }
})
