import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { dumpTree } from '../../../src/nar/dump.ts'
import { restoreNar } from '../../../src/nar/restore.ts'
import { collect, streamOf, withTemporaryDirectory } from '../../helpers/trees.ts'

interface Vector {
  readonly file: string
  readonly verdict: 'accept' | 'reject' | 'accept to its end'
  readonly at?: number
  readonly reason?: string
}

const OWN = join(import.meta.dirname, '../../vectors/nar')

describe('own NARs', () => {
  it.each(casesOf(OWN).map(vector => ({ ...vector, shown: relative(OWN, vector.file) })))('$verdict $shown', async vector => {
    await withTemporaryDirectory(async directory => {
      const outcome = await attempt(vector, join(directory, 'out'))
      expect(outcome.verdict).toBe(vector.verdict)
      if (vector.verdict === 'reject') {
        expect(outcome.message).toContain(`at byte ${String(vector.at)},`)
        expect(outcome.message).toContain(vector.reason)
        expect(readdirSync(directory)).toEqual([])
      } else {
        expect(execFileSync('nix-store', ['--dump', join(directory, 'out')])).toEqual(readFileSync(vector.file))
      }
    })
  })

  it('are all listed', () => {
    const files = readdirSync(OWN).filter(name => name.endsWith('.nar')).sort()
    expect(Object.keys(readCases(OWN)).sort()).toEqual(files)
  })
})

/** Further vectors, not part of the project: NARVIK_VECTORS names a directory with an INDEX.md of tables, or cases.json files. */
const others = process.env['NARVIK_VECTORS']
if (others !== undefined) {
  describe('NARs of NARVIK_VECTORS', () => {
    const vectors = [...casesOf(others), ...indexedOf(others)]
    it('has some', () => { expect(vectors.length).toBeGreaterThan(0) })
    it.each(vectors.map(vector => ({ ...vector, shown: relative(others, vector.file) })))('$verdict $shown', async vector => {
      await withTemporaryDirectory(async directory => {
        const outcome = await attempt(vector, join(directory, 'out'))
        if (vector.verdict !== 'accept to its end') expect(outcome.verdict).toBe(vector.verdict)
        else expect(outcome).toMatchObject({ verdict: 'reject', message: expect.stringContaining('found bytes after the end of the NAR') as string })
      })
    })
  })
}

/** Restores a vector and, where that works, dumps it again. Some are cut into small buffers, and must give the same. */
async function attempt(vector: Vector, out: string): Promise<{ verdict: 'accept' | 'reject', message: string }> {
  const nar = readFileSync(vector.file)
  try {
    await restoreNar(streamOf(nar, nar.length < 1000 ? 3 : 1024), out)
  } catch (error) {
    if (!(error instanceof NarvikError) || error.code !== 'invalid-nar') throw error
    return { verdict: 'reject', message: error.message }
  }
  expect(await collect(dumpTree(out))).toEqual(nar)
  return { verdict: 'accept', message: '' }
}

function readCases(directory: string): Record<string, Omit<Vector, 'file'>> {
  return JSON.parse(readFileSync(join(directory, 'cases.json'), 'utf8')) as Record<string, Omit<Vector, 'file'>>
}

function casesOf(directory: string): Vector[] {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter(each => each.name === 'cases.json')
    .flatMap(each => Object.entries(readCases(each.parentPath)).map(([file, rest]) => ({ ...rest, file: join(each.parentPath, file) })))
}

/** Reads `| file | bytes | hash | what each Nix does with it |` below a heading that names the folder. */
function indexedOf(directory: string): Vector[] {
  if (!readdirSync(directory).includes('INDEX.md')) return []
  const vectors: Vector[] = []
  let folder = ''
  for (const line of readFileSync(join(directory, 'INDEX.md'), 'utf8').split('\n')) {
    if (line.startsWith('## ')) folder = line.slice(3).trim()
    const [, file = '', , , expected = ''] = line.split('|').map(cell => cell.trim())
    if (!line.startsWith('| ') || !file.endsWith('.nar')) continue
    vectors.push({ file: join(directory, folder, file), verdict: verdictOf(expected) })
  }
  return vectors
}

/** What the newest Nix does. Where it leaves bytes after the end unread, Narvik takes the NAR to its end as well, and then refuses those and nothing else: a hash is of all bytes. */
function verdictOf(expected: string): Vector['verdict'] {
  const newest = expected.slice(Math.max(0, expected.lastIndexOf('>=2.34.8:')))
  if (/unread$/i.test(newest)) return 'accept to its end'
  return /reject/i.test(newest) ? 'reject' : 'accept'
}
