import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'vitest'
import { NarHash } from '../../src/image/nar-hash.ts'
import type { Store } from './store.ts'
import { isWhole } from './tree.ts'

/** What must be true of rows and files after `reconcile`, whatever happened before it. */
export async function expectInvariants({ dataDir, catalog, content }: Store): Promise<void> {
  const rows = catalog.list()
  const verified = rows.filter(row => row.state === 'verified')

  const published = await readdir(join(dataDir, 'images'))
  const expected = verified.filter(row => row.place === 'content').map(row => row.narHash.toNix32())
  expect(published.sort(), 'images/ has the verified trees and nothing else').toEqual(expected.sort())
  for (const row of verified) {
    if (row.place === 'content') expect(await isWhole(content.imageTree(row.narHash), row.narHash), 'a verified tree is whole').toBe(true)
  }

  const links = await readdir(join(dataDir, 'by-name'))
  expect(links.sort(), 'by-name/ has the names of verified images').toEqual(verified.flatMap(row => row.name ?? []).sort())
  for (const row of verified) {
    if (row.name !== null) expect(await readlink(content.namePath(row.name))).toBe(content.linkTarget(content.visiblePath(row) ?? 'none'))
  }

  for (const name of await readdir(join(dataDir, 'quarantine'))) {
    const row = catalog.get(NarHash.parse(name))
    expect(row?.state, 'quarantine/ has images that are not verified').toMatch(/wanted|quarantined|rejected/)
  }
  expect(rows.filter(row => row.state === 'receiving'), 'nothing is being received').toEqual([])
  for (const row of rows.filter(({ state, place }) => state === 'quarantined' && place === 'content')) {
    await lstat(content.quarantineTree(row.narHash))
  }
  for (const row of rows) expectJournal(catalog.journal(row.narHash), row.state)
}

/** The journal is complete when each entry begins where the one before it ended, and the last ends in the present. */
export function expectJournal(journal: readonly { from: string | null, to: string | null }[], state: string | null): void {
  let previous: string | null = null
  for (const { from, to } of journal) {
    expect(from, 'the journal has no gap').toBe(previous)
    previous = to
  }
  expect(previous, 'the journal ends in the present').toBe(state)
}
