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

/** Gives an image the name that it was published under, as long as that is free, or was had from a publisher by the image before it: never what this host has named itself. */
export async function nameAsPublished(context: Pick<TaskContext, 'catalog' | 'content' | 'announcer' | 'uses'>, row: ImageRow, { name }: { readonly name: string }): Promise<ImageRow> {
  const { catalog, content, uses, announcer } = context
  const holder = catalog.getByName(name)
  if (holder?.narHash.equals(row.narHash) === true || isNamedHere(context, row)) return row
  if (holder === undefined) return nameImage(context, row, name)
  if (holder.publisher === null) return row
  uses.touch(row.narHash)
  const before = row.name
  const moved = catalog.moveName(row.narHash, name)
  const path = content.visiblePath(moved)
  if (path !== null) await content.link(name, path)
  if (before !== null) await content.unlink(before)
  for (const { narHash } of [holder, moved]) announcer.announce(catalog.get(narHash) ?? moved)
  return moved
}

/** Whether this host has given the image its name: that a publisher's word was noted of it since does not make the name the publisher's. */
function isNamedHere({ catalog }: Pick<TaskContext, 'catalog'>, { name, publisher }: ImageRow): boolean {
  return name !== null && (publisher === null || catalog.names.get(publisher, name) === undefined)
}
