import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Catalog } from '../../src/store/catalog.ts'
import { Content } from '../../src/store/content.ts'
import { temporaryDirectory } from './temporary.ts'

export interface Store {
  readonly dataDir: string
  readonly catalog: Catalog
  readonly content: Content
}

/** Opens the store in a data directory, or in a new one, until the test is over. */
export async function openStore(dataDir?: string): Promise<Store> {
  const directory = dataDir ?? await temporaryDirectory()
  const content = await Content.open(directory)
  const catalog = Catalog.open(join(directory, 'catalog.db'))
  onTestFinished(() => { closeStore({ catalog, content }) })
  return { dataDir: directory, catalog, content }
}

/** Ends a store before its test is over, as a daemon does that stops. */
export function closeStore({ catalog, content }: Pick<Store, 'catalog' | 'content'>): void {
  catalog.close()
  content.close()
}
