/**
 * NARs by hand, right and wrong ones: the grammar written down a second time, as plainly as it goes, so that the product has something
 * to be compared with.
 */
export function str(value: string | Uint8Array): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : Buffer.from(value)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(bytes.length))
  return Buffer.concat([length, bytes, Buffer.alloc(Math.ceil(bytes.length / 8) * 8 - bytes.length)])
}

/** Each text as a NAR string; buffers as they are. */
export function tokens(...parts: (string | Uint8Array)[]): Buffer {
  return Buffer.concat(parts.map(part => typeof part === 'string' ? str(part) : part))
}

export type Tree =
  | { readonly kind: 'regular', readonly contents: Uint8Array, readonly executable: boolean }
  | { readonly kind: 'symlink', readonly target: Uint8Array }
  | { readonly kind: 'directory', readonly entries: readonly Entry[] }

export interface Entry {
  readonly name: Uint8Array
  readonly tree: Tree
}

export function regular(contents: Uint8Array | string, executable = false): Tree {
  return { kind: 'regular', contents: Buffer.from(contents), executable }
}

export function symlink(target: string | Uint8Array): Tree {
  return { kind: 'symlink', target: typeof target === 'string' ? Buffer.from(target, 'latin1') : target }
}

/** The entries in the order in which they are given. */
export function directory(entries: Record<string, Tree> | readonly Entry[] = []): Tree {
  if (Array.isArray(entries)) return { kind: 'directory', entries: entries as readonly Entry[] }
  return { kind: 'directory', entries: Object.entries(entries).map(([name, tree]) => ({ name: Buffer.from(name, 'latin1'), tree: tree as Tree })) }
}

export function nodeBytes(tree: Tree): Buffer {
  switch (tree.kind) {
    case 'regular': return tokens('(', 'type', 'regular', ...tree.executable ? ['executable', ''] : [], 'contents', str(tree.contents), ')')
    case 'symlink': return tokens('(', 'type', 'symlink', 'target', str(tree.target), ')')
    case 'directory': return tokens('(', 'type', 'directory', ...tree.entries.map(({ name, tree: child }) => entryBytes(name, nodeBytes(child))), ')')
  }
}

export function entryBytes(name: string | Uint8Array, node: Uint8Array): Buffer {
  return tokens('entry', '(', 'name', str(name), 'node', node, ')')
}

export function narBytes(tree: Tree): Buffer {
  return tokens('nix-archive-1', nodeBytes(tree))
}

/** A file below `levels` directories, each named `d`. */
export function nested(levels: number, leaf: Tree): Tree {
  let tree = leaf
  for (let level = 0; level < levels; level++) tree = directory({ d: tree })
  return tree
}
