import { lstatSync, readdirSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { fromSystemError } from '../errors.ts'
import { changeTime } from './change-time.ts'

/** Entries that are looked at in one turn of the event loop. */
const ENTRIES_PER_TURN = 500
const SLASH = Buffer.from('/')

/**
 * The newest change time of anything in a tree, in microseconds. The kernel sets it with each change of a file's bytes,
 * mode, owner or links, and it can be set back only with the clock: a tree whose newest one is as it was has the bytes that it had.
 */
export async function newestChange(root: string): Promise<number> {
  let newest = 0
  let seen = 0
  const waiting = [Buffer.from(root)]
  try {
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      const stat = lstatSync(path)
      newest = Math.max(newest, changeTime(stat))
      if (stat.isDirectory()) for (const name of readdirSync(path, { encoding: 'buffer' })) waiting.push(Buffer.concat([path, SLASH, name]))
      if (++seen % ENTRIES_PER_TURN === 0) await setImmediate()
    }
    return newest
  } catch (error) {
    throw fromSystemError(error, `look for changes in ${root}`)
  }
}
