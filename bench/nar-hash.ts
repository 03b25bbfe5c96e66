import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, lstatSync, mkdirSync, mkdtempSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { chunkTree, hashTree } from '../src/nar/hash-tree.ts'
import { removeTree } from '../src/nar/remove.ts'
import { walkNames } from '../src/nar/thread/walk.ts'

export interface NarHashResult {
  readonly name: string
  /** Median milliseconds of Narvik and of each reference, measured turn by turn in the same process. */
  readonly milliseconds: Readonly<Record<string, number>>
  /** Narvik's median over that of each reference. */
  readonly ratios: Readonly<Record<string, number>>
  readonly budget: { readonly against: string, readonly ratio: number }
  /** Where Narvik's time goes. */
  readonly parts: string
}

const GIB = 1024 ** 3
const FILES = 20_000
const RUNS = 7

/** Measures the NAR hash of one large file and of many small ones against plain SHA-256 and against `nix hash path`. */
export async function benchNarHash({ log = console.log, runs = RUNS }: { log?: (line: string) => void, runs?: number } = {}): Promise<NarHashResult[]> {
  const directory = mkdtempSync(join(tmpdir(), 'narvik-bench-'))
  try {
    const results = [await measureLargeFile(join(directory, 'large'), runs), await measureSmallFiles(join(directory, 'small'), runs)]
    for (const result of results) report(result, log)
    return results
  } finally {
    await removeTree(directory)
  }
}

async function measureLargeFile(path: string, runs: number): Promise<NarHashResult> {
  const bytes = plantLargeFile(path)
  const milliseconds = await interleave(runs, {
    'narvik': () => hashTree(path),
    'SHA-256': () => { hashRepeatedly(bytes, GIB) },
    'nix hash path': () => nixHash(path),
    'reading': () => { readWhole(path, bytes) },
    'the same with the chunks, in a second thread': () => chunkTree(path),
  })
  const parts = `reading takes ${share(milliseconds, 'reading')} of the time and is done ahead by other threads, SHA-256 ${share(milliseconds, 'SHA-256')}`
  return { name: '1 GiB in one file', milliseconds, ratios: ratios(milliseconds), budget: { against: 'SHA-256', ratio: 1.05 }, parts }
}

async function measureSmallFiles(path: string, runs: number): Promise<NarHashResult> {
  const files = plantSmallFiles(path)
  const bytes = Buffer.alloc(1024 * 1024, 7)
  const milliseconds = await interleave(runs, {
    'narvik': () => hashTree(path),
    'SHA-256': () => { hashRepeatedly(bytes, files.bytes) },
    'nix hash path': () => nixHash(path),
    'the names': () => walkNames(path, () => undefined),
    'looking at each file': () => { for (const file of files.paths) lstatSync(file) },
    'opening, reading and closing each file': () => { for (const file of files.paths) readWhole(file, bytes) },
    'the same with the chunks, in a second thread': () => chunkTree(path),
  })
  const alone = ['the names', 'looking at each file', 'opening, reading and closing each file', 'SHA-256'] as const
  const sum = alone.reduce((total, part) => total + (milliseconds[part] ?? 0), 0)
  const parts = `one thread takes ${sum.toFixed(0)} ms for ${alone.map(part => `${part} (${(milliseconds[part] ?? 0).toFixed(0)})`).join(', ')}; two share all but the names and SHA-256, and take ${Math.round(100 * (milliseconds['narvik'] ?? 0) / sum)} % of that`
  return { name: `${FILES} files of 0 to 8 KiB`, milliseconds, ratios: ratios(milliseconds), budget: { against: 'nix hash path', ratio: 0.8 }, parts }
}

/** The medians of several runs of each, turn by turn, after one that is not counted. */
async function interleave(runs: number, candidates: Record<string, () => unknown>): Promise<Record<string, number>> {
  const times: Record<string, number[]> = {}
  for (let run = 0; run <= runs; run++) {
    for (const [name, candidate] of Object.entries(candidates)) {
      const start = performance.now()
      await candidate()
      const took = performance.now() - start
      if (run > 0) (times[name] ??= []).push(took)
    }
  }
  return Object.fromEntries(Object.entries(times).map(([name, each]) => [name, median(each)]))
}

function median(times: number[]): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0
}

function ratios(milliseconds: Record<string, number>): Record<string, number> {
  const own = milliseconds['narvik'] ?? 0
  return Object.fromEntries(Object.entries(milliseconds).filter(([name]) => name !== 'narvik').map(([name, time]) => [name, own / time]))
}

function share(milliseconds: Record<string, number>, part: string): string {
  return `${Math.round(100 * (milliseconds[part] ?? 0) / (milliseconds['narvik'] ?? 1))} %`
}

function report({ name, milliseconds, ratios: found, budget, parts }: NarHashResult, log: (line: string) => void): void {
  log(`NAR hash of ${name}: ${(milliseconds['narvik'] ?? 0).toFixed(0)} ms`)
  for (const [reference, ratio] of Object.entries(found)) {
    const goal = budget.against === reference ? ` (budget ${budget.ratio}: ${ratio <= budget.ratio ? 'met' : 'missed'})` : ''
    log(`  ${ratio.toFixed(3)} × ${reference}${goal}`)
  }
  log(`  ${parts}`)
}

/** Writes a file that is no hole; returns one MiB of its bytes, in memory that has been touched. */
function plantLargeFile(path: string): Buffer {
  const bytes = Buffer.alloc(1024 * 1024)
  for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 31 + (at >> 8)) & 255
  const file = openSync(path, 'wx')
  for (let written = 0; written < GIB; written += bytes.length) writeSync(file, bytes)
  closeSync(file)
  return bytes
}

/** Two hundred directories of a hundred files; returns their paths, and the bytes of them all. */
function plantSmallFiles(path: string): { paths: string[], bytes: number } {
  const paths: string[] = []
  let bytes = 0
  mkdirSync(path)
  for (let index = 0; index < FILES; index++) {
    const directory = join(path, `directory-${Math.floor(index / 100)}`)
    if (index % 100 === 0) mkdirSync(directory)
    const contents = Buffer.alloc(index * 7919 % 8192, index)
    const file = join(directory, `file-${index}.txt`)
    writeFileSync(file, contents)
    paths.push(file)
    bytes += contents.length
  }
  return { paths, bytes }
}

function hashRepeatedly(bytes: Buffer, total: number): void {
  const hash = createHash('sha256')
  for (let left = total; left > 0; left -= bytes.length) hash.update(left < bytes.length ? bytes.subarray(0, left) : bytes)
  hash.digest()
}

function readWhole(path: string, buffer: Buffer): void {
  const file = openSync(path, 'r')
  while (readSync(file, buffer) > 0) { /* What is read is not looked at. */ }
  closeSync(file)
}

async function nixHash(path: string): Promise<void> {
  await promisify(execFile)('nix', ['--extra-experimental-features', 'nix-command', 'hash', 'path', path])
}

if (import.meta.main) await benchNarHash()
