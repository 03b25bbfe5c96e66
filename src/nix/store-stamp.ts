import { lstatSync, type BigIntStats } from 'node:fs'
import { join } from 'node:path'
import { systemCode } from '../errors.ts'
import { NIX_SETTLE_MS } from '../limits.ts'
import type { StoreLocation } from './store-location.ts'

/**
 * What tells, in three system calls, whether anything may have changed about a store path since Nix was asked: the path
 * itself, which is a new file when it is registered anew, and Nix's database with its log, which change whenever anything is
 * registered, signed or forgotten. Null where that can't be told: in a store that is not on this machine, and shortly after
 * a change, when another one could bear the same time.
 */
export function stampOf({ directory, stateDir }: StoreLocation, baseName: string, now = Date.now()): string | null {
  if (directory === null || stateDir === null) return null
  const database = databaseIn(stateDir)
  try {
    const path = lstatSync(join(directory, baseName), { bigint: true })
    const files = [lstatSync(database, { bigint: true }), lookAt(`${database}-wal`)]
    if (files.some(file => file !== null && Number(file.mtimeMs) > now - NIX_SETTLE_MS)) return null
    return [path, ...files].map(file => file === null ? '-' : `${file.dev}:${file.ino}:${file.size}:${file.mtimeNs}:${file.ctimeNs}`).join(' ')
  } catch (error) {
    if (systemCode(error) === undefined) throw error
    return null
  }
}

export function databaseIn(stateDir: string): string {
  return join(stateDir, 'db/db.sqlite')
}

/** Whether the path itself was the same file when two stamps were taken, whatever else has changed in its store. */
export function isSameFile(stamp: string, other: string): boolean {
  return stamp.slice(0, stamp.indexOf(' ')) === other.slice(0, other.indexOf(' '))
}

/** A log that is empty is as good as none: one is there while any program has the database open. */
function lookAt(path: string): BigIntStats | null {
  try {
    const found = lstatSync(path, { bigint: true })
    return found.size === 0n ? null : found
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}
