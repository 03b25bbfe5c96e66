import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { finished } from 'node:stream/promises'
import { join } from 'node:path'

/** A tree with everything that a NAR can express, and the names that other tools trip over. */
export async function makeOddTree(root: string): Promise<void> {
  await mkdir(join(root, 'sub', 'deep', 'er'), { recursive: true })
  await mkdir(join(root, 'empty-directory'))
  await writeFile(join(root, 'plain.txt'), 'hello\n')
  await writeFile(join(root, 'empty'), '')
  await writeFile(join(root, 'run.sh'), '#!/bin/sh\necho hi\n')
  await chmod(join(root, 'run.sh'), 0o755)
  await writeFile(join(root, 'group-executable'), 'not executable to Nix')
  await chmod(join(root, 'group-executable'), 0o654)
  await writeFile(join(root, 'sub', 'deep', 'er', 'seven'), '1234567')
  await writeFile(join(root, 'sub', 'eight'), '12345678')
  await symlink('plain.txt', join(root, 'link'))
  await symlink('../../outside/nowhere', join(root, 'dangling'))
  await symlink('/etc/passwd', join(root, 'sub', 'absolute'))
  for (const name of ['B', 'a', 'Z z', 'new\nline', 'back\\slash', 'ünïcode', '😀', '\uffee', '-dash', '.hidden', '~nix~case~hack~1', 'x'.repeat(255)]) {
    await writeFile(join(root, name), name)
  }
  await writeFile(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe, 0x80])]), 'not UTF-8')
}

/** Files of random sizes around small boundaries, spread over directories of a hundred. */
export async function makeManyFiles(root: string, count: number): Promise<void> {
  await mkdir(root)
  for (let first = 0; first < count; first += 100) {
    const dir = join(root, `d${first / 100}`)
    await mkdir(dir)
    const files = Array.from({ length: Math.min(100, count - first) }, (_, index) => first + index)
    await Promise.all(files.map(index => writeFile(join(dir, `file-${index}`), `${index}`.repeat(index % 97))))
  }
}

/** A raw disk of `size` bytes: pseudo-random blocks, with a stretch of zeros as disks have them. */
export async function makeRawDisk(file: string, size: number, seed = 1): Promise<void> {
  const stream = createWriteStream(file)
  const block = 1024 * 1024
  for (let at = 0; at < size; at += block) {
    const bytes = Buffer.alloc(Math.min(block, size - at))
    if (at / block % 8 !== 7) fill(bytes, seed * 2_654_435_761 + at)
    if (!stream.write(bytes)) await once(stream, 'drain')
  }
  stream.end()
  await finished(stream)
}

/** Xorshift: the same bytes for the same seed, fast, and nothing like zeros. */
function fill(bytes: Buffer, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  let state = (seed >>> 0) || 1
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[index] = state >>> 0
  }
}
