import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'

/** The lines that a process prints, one at each `next`. */
export function printedBy({ stdout }: ChildProcess): AsyncIterableIterator<string, undefined> {
  if (stdout === null) throw new Error('Cannot read what a process prints: found no pipe from it')
  return createInterface(stdout)[Symbol.asyncIterator]()
}
