import { execFile } from 'node:child_process'
import { chmod, chown, lstat, mkdir, readdir, readFile, readlink, rename, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { MAX_PROGRESS_BYTES } from '../../../src/limits.ts'
import { Content } from '../../../src/store/content.ts'
import { someHash, someStorePath } from '../../helpers/images.ts'
import { isWhole, makeTree } from '../../helpers/tree.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const narHash = someHash('image')

async function openContent(dataDir?: string): Promise<Content> {
  const content = await Content.open(dataDir ?? join(await temporaryDirectory(), 'data'))
  onTestFinished(() => { content.close() })
  return content
}

async function receive(content: Content): Promise<void> {
  await content.begin(narHash)
  await makeTree(content.quarantineTree(narHash), narHash)
}

async function modeOf(path: string): Promise<number> {
  return (await lstat(path)).mode & 0o777
}

describe('the data directory', () => {
  test('is made for its owner, and the quarantine is always closed', async () => {
    const { dataDir } = await openContent()
    expect(await modeOf(dataDir)).toBe(0o700)
    expect(await modeOf(join(dataDir, 'quarantine'))).toBe(0o700)
    expect(await modeOf(join(dataDir, 'images'))).toBe(0o755)
    expect(await modeOf(join(dataDir, 'by-name'))).toBe(0o755)
  })

  test('keeps its own mode, and its quarantine is closed again', async () => {
    const directory = await temporaryDirectory()
    await chmod(directory, 0o755)
    await mkdir(join(directory, 'quarantine'), { mode: 0o777 })
    await openContent(directory)
    expect(await modeOf(directory)).toBe(0o755)
    expect(await modeOf(join(directory, 'quarantine'))).toBe(0o700)
  })

  // Only root gets into other users' directories, and only root gives its own away.
  test.skipIf(process.getuid?.() !== 0)('of another user is refused, also to root', async () => {
    const directory = await temporaryDirectory()
    await chown(directory, 12345, 12345)
    await expect(Content.open(directory)).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('belongs to another user (uid 12345)') as string })
    expect(await readdir(directory)).toEqual([])
  })

  test('that others may write is refused', async () => {
    for (const mode of [0o777, 0o775, 0o702]) {
      const directory = await temporaryDirectory()
      await chmod(directory, mode)
      await expect(Content.open(directory)).rejects.toMatchObject({ code: 'refused', hint: `chmod go-w ${directory}` })
    }
  })

  test('with something else in the place of a directory is refused, and is free afterwards', async () => {
    for (const name of ['quarantine', 'images', 'by-name']) {
      const directory = await temporaryDirectory()
      await symlink('/tmp', join(directory, name))
      await expect(Content.open(directory)).rejects.toMatchObject({ code: 'conflict' })
      await rename(join(directory, name), join(directory, 'away'))
      await openContent(directory)
    }
  })

  test('has one daemon at a time', async () => {
    const content = await openContent()
    const { dataDir } = content
    await expect(Content.open(dataDir)).rejects.toMatchObject({ code: 'in-use', message: expect.stringContaining(dataDir) as string, hint: expect.stringContaining('--data-dir') as string })
    const other = new URL('../../fixtures/open-content.ts', import.meta.url).pathname
    const run = promisify(execFile)
    await expect(run(process.execPath, [other, dataDir])).resolves.toMatchObject({ stdout: 'in-use\n' })
    content.close()
    await expect(run(process.execPath, [other, dataDir])).resolves.toMatchObject({ stdout: 'open\n' })
    await openContent(dataDir)
  })

  test('has room', async () => {
    expect(await (await openContent()).freeBytes()).toBeGreaterThan(0)
  })
})

describe('a tree', () => {
  test('is received in quarantine, published read-only and withdrawn', async () => {
    const content = await openContent()
    await receive(content)
    await content.begin(narHash)
    await content.writeProgress(narHash, { offset: 10 })
    expect(content.quarantineTree(narHash)).toBe(join(content.dataDir, 'quarantine', narHash.toNix32(), 'tree'))
    expect(await modeOf(join(content.dataDir, 'quarantine', narHash.toNix32()))).toBe(0o700)

    await content.publish(narHash)
    expect(content.imageTree(narHash)).toBe(join(content.dataDir, 'images', narHash.toNix32()))
    expect(await isWhole(content.imageTree(narHash), narHash)).toBe(true)
    expect(await modeOf(content.imageTree(narHash))).toBe(0o555)
    expect(await readdir(join(content.dataDir, 'quarantine'))).toEqual([])

    await content.withdraw(narHash)
    expect(await isWhole(content.quarantineTree(narHash), narHash)).toBe(true)
    expect(await readdir(join(content.dataDir, 'images'))).toEqual([])
    expect(await content.readProgress(narHash)).toBeUndefined()
  })

  test('is back in quarantine when nobody can claim it', async () => {
    const content = await openContent()
    await receive(content)
    await content.writeProgress(narHash, { offset: 10 })
    const claim = (): never => { throw new NarvikError('disk-full', 'Cannot claim it') }
    await expect(content.publishWith(narHash, claim)).rejects.toMatchObject({ code: 'disk-full', message: 'Cannot claim it' })
    expect(await isWhole(content.quarantineTree(narHash), narHash)).toBe(true)
    expect(await content.readProgress(narHash)).toEqual({ offset: 10 })
    expect(await readdir(join(content.dataDir, 'images'))).toEqual([])
    expect(await content.publishWith(narHash, () => 'claimed')).toBe('claimed')
    expect(await isWhole(content.imageTree(narHash), narHash)).toBe(true)
  })

  test('may be a file, a symlink or nothing at all', async () => {
    const content = await openContent()
    await content.begin(narHash)
    await writeFile(content.quarantineTree(narHash), 'disk', { mode: 0o444 })
    await content.publish(narHash)
    expect(await readFile(content.imageTree(narHash), 'utf8')).toBe('disk')
    await content.withdraw(narHash)
    await content.discard(narHash)

    const target = join(await temporaryDirectory(), 'target')
    await mkdir(target, { mode: 0o700 })
    await content.begin(narHash)
    await symlink(target, content.quarantineTree(narHash))
    await content.publish(narHash)
    expect(await readlink(content.imageTree(narHash))).toBe(target)
    expect(await modeOf(target)).toBe(0o700)
    await content.discard(narHash)

    await expect(content.publish(narHash)).rejects.toMatchObject({ code: 'not-found' })
    await expect(content.withdraw(narHash)).rejects.toMatchObject({ code: 'not-found' })
    await content.discard(narHash)
  })

  test('that is published takes the place of one that no verdict had passed', async () => {
    const content = await openContent()
    await makeTree(content.imageTree(narHash), someHash('other'))
    await chmod(content.imageTree(narHash), 0o555)
    await receive(content)
    await content.publish(narHash)
    expect(await isWhole(content.imageTree(narHash), narHash)).toBe(true)
    expect(await readdir(join(content.dataDir, 'quarantine'))).toEqual([])
  })

  test('that is withdrawn takes the place of what was in quarantine', async () => {
    const content = await openContent()
    await receive(content)
    await content.publish(narHash)
    await content.begin(narHash)
    await makeTree(content.quarantineTree(narHash), someHash('other'))
    await content.withdraw(narHash)
    expect(await isWhole(content.quarantineTree(narHash), narHash)).toBe(true)
  })

  test('is staged under no hash, and adopted under one', async () => {
    const content = await openContent()
    const [stage, second, third] = [await content.stage(), await content.stage(), await content.stage()]
    for (const { tree } of [stage, second, third]) await makeTree(tree, narHash)
    await content.adopt(stage, narHash)
    expect(await isWhole(content.quarantineTree(narHash), narHash)).toBe(true)
    await expect(content.adopt(second, narHash)).rejects.toMatchObject({ code: 'conflict' })
    await content.discardStage(second)
    await content.discardStage(third)
    expect(await readdir(join(content.dataDir, 'quarantine'))).toEqual([narHash.toNix32()])
  })

  test('is discarded from both places, read-only parts too', async () => {
    const content = await openContent()
    await receive(content)
    await chmod(join(content.quarantineTree(narHash), 'boot'), 0o555)
    await content.publish(narHash)
    await content.begin(narHash)
    await content.discard(narHash)
    expect(await readdir(join(content.dataDir, 'images'))).toEqual([])
    expect(await readdir(join(content.dataDir, 'quarantine'))).toEqual([])
  })

  test('is moved by a user who is not root', async () => {
    const directory = await temporaryDirectory()
    const user = process.getuid?.() === 0 ? 65534 : process.getuid?.() ?? 65534
    if (process.getuid?.() === 0) await execute('chown', [String(user), directory])
    const program = new URL('../../fixtures/move-tree.ts', import.meta.url).pathname
    const { stdout } = await promisify(execFile)(process.execPath, [program, directory], { uid: user, gid: user, cwd: '/' })
    expect(stdout).toBe('published 555\nwithdrawn 755\ndiscarded\n')
  })
})

describe('a path that is shown', () => {
  test('is that of a verified image', async () => {
    const content = await openContent()
    const storePath = someStorePath(1)
    for (const state of ['wanted', 'receiving', 'quarantined', 'rejected'] as const) {
      expect(content.visiblePath({ narHash, state, place: 'content', storePath })).toBeNull()
      expect(content.visiblePath({ narHash, state, place: 'nix-store', storePath })).toBeNull()
    }
    expect(content.visiblePath({ narHash, state: 'verified', place: 'content', storePath })).toBe(content.imageTree(narHash))
    expect(content.visiblePath({ narHash, state: 'verified', place: 'nix-store', storePath })).toBe(storePath)
  })

  test('is linked by name, and replaced', async () => {
    const content = await openContent()
    const link = content.namePath('web')
    expect(link).toBe(join(content.dataDir, 'by-name', 'web'))
    await content.link('web', content.imageTree(narHash))
    expect(await readlink(link)).toBe(`../images/${narHash.toNix32()}`)
    await content.link('web', '/nix/store/abc')
    expect(await readlink(link)).toBe('/nix/store/abc')
    await content.unlink('web')
    await content.unlink('web')
    expect(await readdir(join(content.dataDir, 'by-name'))).toEqual([])
  })

  test('is linked inside by-name/ only', async () => {
    const content = await openContent()
    for (const name of ['..', '../images/x', 'a/b', '', '.tmp-0', 'a\0']) {
      await expect(content.link(name, '/x'), name).rejects.toMatchObject({ code: 'invalid-argument' })
      await expect(content.unlink(name), name).rejects.toMatchObject({ code: 'invalid-argument' })
    }
    await mkdir(content.namePath('web'))
    await expect(content.link('web', '/x')).rejects.toMatchObject({ code: 'conflict' })
    expect(await readdir(join(content.dataDir, 'by-name'))).toEqual(['web'])
  })
})

describe('progress', () => {
  test('is read as it was written', async () => {
    const content = await openContent()
    expect(await content.readProgress(narHash)).toBeUndefined()
    await content.begin(narHash)
    for (const progress of [{ offset: 0 }, { offset: 2 ** 40, providers: ['a', { b: null }], manifest: 'x' }]) {
      await content.writeProgress(narHash, progress)
      expect(await content.readProgress(narHash)).toEqual(progress)
    }
    expect(await readdir(join(content.dataDir, 'quarantine', narHash.toNix32()))).toEqual(['progress.json'])
  })

  test('that makes no sense is none', async () => {
    const content = await openContent()
    await content.begin(narHash)
    const file = join(content.dataDir, 'quarantine', narHash.toNix32(), 'progress.json')
    for (const text of ['', '{', 'null', '[]', '{"version":2,"offset":1}', '{"version":1}', '{"version":1,"offset":-1}', '{"version":1,"offset":1.5}', '{"version":1,"offset":"1"}', '{"version":1,"offset":1e300}']) {
      await writeFile(file, text)
      expect(await content.readProgress(narHash), text).toBeUndefined()
    }
  })

  test('is not written out of bounds, and what was there stays', async () => {
    const content = await openContent()
    await content.begin(narHash)
    await content.writeProgress(narHash, { offset: 5 })
    for (const offset of [-1, 0.5, NaN, 2 ** 60]) {
      await expect(content.writeProgress(narHash, { offset })).rejects.toMatchObject({ code: 'invalid-argument' })
    }
    await expect(content.writeProgress(narHash, { offset: 1, text: 'x'.repeat(MAX_PROGRESS_BYTES) })).rejects.toMatchObject({ code: 'too-large' })
    await expect(content.writeProgress(someHash('not begun'), { offset: 1 })).rejects.toMatchObject({ code: 'not-found' })
    expect(await content.readProgress(narHash)).toEqual({ offset: 5 })
  })
})

async function execute(command: string, args: string[]): Promise<void> {
  await promisify(execFile)(command, args)
}
