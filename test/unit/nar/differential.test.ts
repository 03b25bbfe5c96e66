import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dumpTree } from '../../../src/nar/dump.ts'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { removeTree } from '../../../src/nar/remove.ts'
import { restoreNar } from '../../../src/nar/restore.ts'
import type { Tree } from '../../helpers/nar-bytes.ts'
import { anyTree, collect, harvest, plant, streamOf } from '../../helpers/trees.ts'

const TREES = process.env['SLOW'] === '1' ? 2000 : 200
const MAX_DUMP_BYTES = 1024 ** 3

/** Narvik and the real Nix, over the same generated trees, all in one directory so that each command of Nix runs once. */
describe('against Nix', () => {
  let directory: string
  let trees: Tree[]
  const path = (...parts: string[]): string => join(directory, ...parts)
  const nix = (command: string, args: string[], input?: Buffer): Buffer => execFileSync(command, args, { input, maxBuffer: MAX_DUMP_BYTES })

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'narvik-test-'))
    trees = fc.sample(anyTree, TREES)
    plant(path('trees'), { kind: 'directory', entries: [] })
    trees.forEach((tree, index) => { plant(path('trees', String(index)), tree) })
  })
  afterAll(async () => { await removeTree(directory) })

  it('each tree has the hash that nix-hash and nix hash path give', async () => {
    const paths = trees.map((_, index) => path('trees', String(index)))
    const hashes = nix('nix-hash', ['--type', 'sha256', '--base32', ...paths]).toString().trim().split('\n')
    const found: string[] = []
    for (const each of paths) found.push((await hashTree(each)).narHash.toNix32())
    expect(found).toEqual(hashes)
    const all = nix('nix', ['--extra-experimental-features', 'nix-command', 'hash', 'path', path('trees')]).toString().trim()
    expect((await hashTree(path('trees'))).narHash.toSri()).toBe(all)
  })

  it('dumps what nix-store dumps', async () => {
    const theirs = nix('nix-store', ['--dump', path('trees')])
    const ours = await collect(dumpTree(path('trees')))
    expect(ours.equals(theirs)).toBe(true)
  })

  it('what one dumps the other restores', async () => {
    nix('nix-store', ['--restore', path('by-nix')], await collect(dumpTree(path('trees'))))
    await restoreNar(streamOf(nix('nix-store', ['--dump', path('trees')])), path('by-narvik'))
    const names = readdirSync(path('trees'))
    expect(readdirSync(path('by-narvik'))).toEqual(names)
    for (const name of names) expect(harvest(path('by-narvik', name))).toEqual(harvest(path('by-nix', name)))
  })

  it('gives restored files the modes that Nix gives them', async () => {
    const tree: Tree = { kind: 'directory', entries: [
      { name: Buffer.from('a'), tree: { kind: 'regular', contents: Buffer.from('a'), executable: false } },
      { name: Buffer.from('b'), tree: { kind: 'regular', contents: Buffer.from('b'), executable: true } },
      { name: Buffer.from('c'), tree: { kind: 'directory', entries: [] } },
    ] }
    plant(path('modes'), tree)
    const nar = await collect(dumpTree(path('modes')))
    nix('nix-store', ['--restore', path('modes-by-nix')], nar)
    await restoreNar(streamOf(nar), path('modes-by-narvik'))
    expect(listModes(path('modes-by-narvik'))).toEqual(listModes(path('modes-by-nix')))
  })
})

function listModes(root: string): string {
  return execFileSync('find', ['.', '-printf', '%P %y %m\n'], { cwd: root }).toString().split('\n').sort().join('\n')
}
