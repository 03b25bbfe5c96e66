import type { ImageRow } from '../store/image-row.ts'
import type { TaskContext } from './context.ts'

/** Gives a verified image another name, where one is given; the old one is free then. */
export async function nameImage({ catalog, content, uses, announcer }: Pick<TaskContext, 'catalog' | 'content' | 'uses' | 'announcer'>, row: ImageRow, name: string | undefined): Promise<ImageRow> {
  if (name === undefined || name === row.name) return row
  uses.touch(row.narHash)
  const renamed = catalog.setName(row.narHash, name)
  const path = content.visiblePath(renamed)
  if (path !== null) await content.link(name, path)
  if (row.name !== null) await content.unlink(row.name)
  announcer.announce(renamed)
  return renamed
}
