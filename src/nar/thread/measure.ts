import { closeSync, lstatSync, openSync, readdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { systemCode } from '../../errors.ts'
import { checkProc, OPEN_DIRECTORY, pathIn, treeError } from '../directory.ts'

/** Bytes of a block in which `stat` counts, whatever the file system. */
const STAT_BLOCK_BYTES = 512

/** What is at `root`, as far as it stays there while it is looked at. Follows no symlink. */
export function measureNow(root: string, check: () => void): { apparentBytes: number, diskBytes: number } {
  checkProc()
  const top = resolve(root)
  const measure = { check, total: { apparentBytes: 0, diskBytes: 0 }, linked: new Set<string>() }
  try {
    measureAt(measure, top)
    return measure.total
  } catch (error) {
    throw treeError(error, `measure ${top}`)
  }
}

interface Measure {
  readonly check: () => void
  readonly total: { apparentBytes: number, diskBytes: number }
  /** Files with several names, which take their bytes once. */
  readonly linked: Set<string>
}

function measureAt(measure: Measure, path: string | Buffer): void {
  measure.check()
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return
  const isDirectory = stat.isDirectory()
  if (!isDirectory && stat.nlink > 1) {
    const id = `${stat.dev} ${stat.ino}`
    if (measure.linked.has(id)) return
    measure.linked.add(id)
  }
  measure.total.diskBytes += stat.blocks * STAT_BLOCK_BYTES
  if (isDirectory) measureInside(measure, path)
  else measure.total.apparentBytes += stat.size
}

function measureInside(measure: Measure, path: string | Buffer): void {
  const directory = openUnlessGone(path)
  if (directory === undefined) return
  try {
    for (const name of readdirSync(`/proc/self/fd/${directory}`, { encoding: 'latin1' })) measureAt(measure, pathIn(directory, Buffer.from(name, 'latin1')))
  } finally {
    closeSync(directory)
  }
}

function openUnlessGone(path: string | Buffer): number | undefined {
  try {
    return openSync(path, OPEN_DIRECTORY)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}
