import { execa } from 'execa'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { runCli, temporaryDirectory } from '../helpers/fleet.ts'
import { directory, entryBytes, narBytes, nodeBytes, regular, str, symlink, tokens } from '../helpers/nar-bytes.ts'
import { nixHashPath } from '../helpers/real-nix.ts'
import { makeOddTree, makeRawDisk } from '../helpers/source-trees.ts'
import { throwAwayStore } from '../helpers/nix-store.ts'

const NARVIK = new URL('../../bin/narvik', import.meta.url).pathname

describe('without a daemon', () => {
  const sources: [string, (path: string) => Promise<unknown>][] = [
    ['odd names, modes and links', makeOddTree],
    ['a disk with holes', path => makeRawDisk(path, 20 * 1024 * 1024)],
  ]
  it.each(sources)('hash, dump and restore agree with the real Nix on %s', async (_what, make) => {
    const store = throwAwayStore()
    try {
      const dir = await temporaryDirectory()
      const [source, theirs, ours] = [join(dir, 'source'), join(dir, 'theirs'), join(dir, 'ours')]
      await make(source)
      const narHash = await nixHashPath(source)
      expect((await runCli(['hash', source])).stdout).toBe(narHash)
      const { stdout: nar } = await execa(NARVIK, ['dump', source], { encoding: 'buffer', maxBuffer: 1e9 })
      const { stdout: nixNar } = await execa('nix-store', ['--dump', source], { encoding: 'buffer', maxBuffer: 1e9, env: store.env })
      expect(Buffer.compare(nar, nixNar)).toBe(0)
      const restored = await runCli(['restore', ours, '--json'], { input: nixNar })
      expect(JSON.parse(restored.stdout)).toEqual({ narHash, narSize: nar.length })
      await execa('nix-store', ['--restore', theirs], { input: nar, env: store.env })
      expect([await nixHashPath(ours), await nixHashPath(theirs)]).toEqual([narHash, narHash])
    } finally {
      store.remove()
    }
  })

  const two = (first: string | Uint8Array, second: string | Uint8Array): Buffer => narBytesOf(entryBytes(first, nodeBytes(regular('1'))), entryBytes(second, nodeBytes(regular('2'))))
  const one = (name: string): Buffer => narBytesOf(entryBytes('a', nodeBytes(regular('1'))), entryBytes(name, nodeBytes(regular('evil'))))
  const absurd = (length: bigint): Buffer => {
    const field = Buffer.alloc(8)
    field.writeBigUInt64LE(length)
    return Buffer.concat([tokens('nix-archive-1', '(', 'type', 'regular', 'contents'), field, Buffer.alloc(64)])
  }
  const through = narBytesOf(entryBytes('a', nodeBytes(symlink('../outside'))), entryBytes('a', nodeBytes(directory({ evil: regular('evil') }))))
  const hostile: [string, Buffer][] = [
    ['the name ..', one('..')],
    ['the name .', one('.')],
    ['a name with /', one('b/../../outside/evil')],
    ['an absolute name', one('/tmp/narvik-evil')],
    ['a name with NUL', one('b\0')],
    ['an empty name', one('')],
    ['the same name twice', two('a', 'a')],
    ['names that are not sorted', two('b', 'a')],
    ['a link and a directory of one name', through],
    ['a file of 2^63 bytes', absurd(2n ** 63n)],
    ['a file of 2^64 - 1 bytes', absurd(2n ** 64n - 1n)],
    ['a file that is longer than the NAR', absurd(1n << 40n)],
    ['a string with padding that is not zero', Buffer.concat([str('nix-archive-1').fill(1, 21, 22), nodeBytes(regular('x'))])],
    ['an end in the middle', narBytes(directory({ a: regular('hello') })).subarray(0, -20)],
    ['bytes after its end', Buffer.concat([narBytes(regular('x')), Buffer.from('more')])],
    ['nothing', Buffer.alloc(0)],
  ]
  it.each(hostile)('restore refuses a NAR with %s, and leaves nothing', async (_what, nar) => {
    const dir = await temporaryDirectory()
    await mkdir(join(dir, 'outside'))
    await mkdir(join(dir, 'in'))
    const { exitCode, stdout } = await runCli(['restore', join(dir, 'in', 'dest'), '--json'], { input: nar })
    expect(exitCode).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: expect.stringMatching(/^(invalid-nar|too-large)$/) as string, message: expect.stringMatching(/found .*, needed /) as string } })
    expect(await readdir(dir)).toEqual(['in', 'outside'])
    expect(await readdir(join(dir, 'in'))).toEqual([])
    expect(await readdir(join(dir, 'outside'))).toEqual([])
  })

  it('restore leaves what is there as it is', async () => {
    const dest = join(await temporaryDirectory(), 'dest')
    await writeFile(dest, 'precious')
    const { exitCode, stdout } = await runCli(['restore', dest, '--json'], { input: narBytes(regular('new')) })
    expect(exitCode).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'conflict' } })
    expect((await execa('cat', [dest])).stdout).toBe('precious')
  })
})

/** A NAR of a directory with these entries, whatever they are. */
function narBytesOf(...entries: readonly Buffer[]): Buffer {
  return tokens('nix-archive-1', tokens('(', 'type', 'directory', ...entries, ')'))
}
