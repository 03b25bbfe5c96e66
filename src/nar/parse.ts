import { nameProblem, showBytes, targetProblem } from '../image/entry.ts'
import { MAX_NAR_DEPTH, MAX_NAR_NAME_BYTES, MAX_NAR_SIZE, MAX_NAR_TAG_BYTES, MAX_NAR_TARGET_BYTES } from '../limits.ts'
import { ByteReader, invalidNar } from './byte-reader.ts'
import { MAGIC } from './framing.ts'

type Step = void | Promise<void>

/** What is told of a NAR while it is read, in its order. Bytes are views that are good until the step is done. The root's name is empty. */
export interface NarVisitor {
  directory(name: Uint8Array): Step
  /** The end of the innermost directory. */
  leave(): Step
  regular(name: Uint8Array, size: number, executable: boolean): Step
  /** The next bytes of the file that `regular` told of; `size` bytes in all. */
  contents(bytes: Uint8Array): Step
  symlink(name: Uint8Array, target: Uint8Array): Step
}

/**
 * Reads a NAR as strictly as Nix 2.34.8 and newer, and refuses bytes after its end. It holds one buffer of the source and the names
 * that lead to where it stands.
 * @throws NarvikError `invalid-nar` with the byte offset and the reason.
 */
export async function parseNar(source: AsyncIterable<Uint8Array>, visitor: NarVisitor): Promise<void> {
  const reader = new ByteReader(source)
  try {
    await expectTag(reader, MAGIC)
    await parseNode({ reader, visitor, name: NO_NAME, depth: 0 })
    await reader.end()
  } finally {
    await reader.close()
  }
}

interface Node {
  readonly reader: ByteReader
  readonly visitor: NarVisitor
  readonly name: Uint8Array
  readonly depth: number
}

const NO_NAME = new Uint8Array(0)

async function parseNode(node: Node): Promise<void> {
  const { reader } = node
  if (node.depth >= MAX_NAR_DEPTH) throw invalidNar(reader.offset, `found an entry at depth ${node.depth}, needed a depth below ${MAX_NAR_DEPTH}`)
  await expectTag(reader, '(')
  await expectTag(reader, 'type')
  const start = reader.offset
  const type = await tag(reader)
  switch (type) {
    case 'directory': return parseDirectory(node)
    case 'regular': return parseRegular(node)
    case 'symlink': return parseSymlink(node)
    default: throw invalidNar(start, `found the type '${showTag(type)}', needed 'directory', 'regular' or 'symlink'`)
  }
}

async function parseDirectory(node: Node): Promise<void> {
  const { reader, visitor } = node
  await visitor.directory(node.name)
  let last = NO_NAME
  while (await expectTag(reader, 'entry', ')') === 'entry') {
    await expectTag(reader, '(')
    await expectTag(reader, 'name')
    last = await parseName(reader, last)
    await expectTag(reader, 'node')
    await parseNode({ reader, visitor, name: last, depth: node.depth + 1 })
    await expectTag(reader, ')')
  }
  await visitor.leave()
}

async function parseName(reader: ByteReader, last: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const start = reader.offset
  const name = Uint8Array.from(await reader.string(MAX_NAR_NAME_BYTES, 'a name'))
  const problem = nameProblem(name)
  if (problem !== undefined) throw invalidNar(start, problem)
  if (last.length > 0 && Buffer.compare(last, name) >= 0) {
    throw invalidNar(start, `found the name ${showBytes(name)} after ${showBytes(last)}, needed names in strictly ascending order`)
  }
  return name
}

async function parseRegular({ reader, visitor, name }: Node): Promise<void> {
  const executable = await expectTag(reader, 'contents', 'executable') === 'executable'
  if (executable) {
    await expectTag(reader, '')
    await expectTag(reader, 'contents')
  }
  const size = await reader.length(MAX_NAR_SIZE, 'contents')
  await visitor.regular(name, size, executable)
  for (let left = size; left > 0;) {
    const bytes = await reader.some(left, `${left} more bytes of contents`)
    left -= bytes.length
    await visitor.contents(bytes)
  }
  await reader.padding(size)
  await expectTag(reader, ')')
}

async function parseSymlink({ reader, visitor, name }: Node): Promise<void> {
  await expectTag(reader, 'target')
  const start = reader.offset
  const target = Uint8Array.from(await reader.string(MAX_NAR_TARGET_BYTES, 'a symlink target'))
  const problem = targetProblem(target)
  if (problem !== undefined) throw invalidNar(start, problem)
  await expectTag(reader, ')')
  await visitor.symlink(name, target)
}

async function tag(reader: ByteReader): Promise<string> {
  return (await reader.string(MAX_NAR_TAG_BYTES, 'a tag')).toString('latin1')
}

/** Takes the next tag, which must be one of `expected`, and returns it. */
async function expectTag<T extends string>(reader: ByteReader, ...expected: T[]): Promise<T> {
  const start = reader.offset
  const found = await tag(reader)
  for (const candidate of expected) if (candidate === found) return candidate
  throw invalidNar(start, `found '${showTag(found)}', needed ${expected.map(each => `'${each}'`).join(' or ')}`)
}

function showTag(tag: string): string {
  return showBytes(Buffer.from(tag, 'latin1'))
}
