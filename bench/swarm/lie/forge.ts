import { readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { NarHash } from '../../../src/image/nar-hash.ts'

/**
 * Turns what a daemon that is stopped has of one image into the same under another NAR hash: its manifest and its bytes then agree with each
 * other, and with everything that it announces, but not with the name that it gives them.
 */
export function forge(dataDir: string, { is, claimed }: { is: NarHash, claimed: NarHash }): void {
  const catalog = new DatabaseSync(join(dataDir, 'catalog.db'), { enableForeignKeyConstraints: false })
  try {
    // They keep honest programs from what is done here.
    for (const { name } of rows<{ name: string }>(catalog, "SELECT name FROM sqlite_schema WHERE type = 'trigger'")) catalog.exec(`DROP TRIGGER "${name}"`)
    const tables = rows<{ name: string }>(catalog, "SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'nar_hash'")
    for (const { name } of tables) catalog.prepare(`UPDATE "${name}" SET nar_hash = ? WHERE nar_hash = ?`).run(claimed.bytes, is.bytes)
  } finally {
    catalog.close()
  }
  for (const folder of ['images', 'quarantine']) rename(join(dataDir, folder), is.toNix32(), claimed.toNix32())
}

function rows<T>(database: DatabaseSync, query: string): T[] {
  return database.prepare(query).all() as T[]
}

function rename(folder: string, from: string, to: string): void {
  for (const name of readdirSync(folder)) if (name.includes(from)) renameSync(join(folder, name), join(folder, name.replace(from, to)))
}
