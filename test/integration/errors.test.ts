import { execa } from 'execa'
import { chmod, chown, mkdir, open, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { runCli, startFleet, temporaryDirectory, TestDaemon, type CommandResult } from '../helpers/fleet.ts'
import { makeOddTree } from '../helpers/source-trees.ts'

const UNKNOWN = 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='

function errorOf({ stdout }: CommandResult): { code: string, message: string } {
  return (JSON.parse(stdout) as { error: { code: string, message: string } }).error
}

describe('what goes wrong has its own error and exit code', () => {
  let host: TestDaemon, peer: TestDaemon
  beforeAll(async () => { [host, peer] = await startFleet(2, { env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '1' } }) })

  it.each(['show', 'verify', 'rm'])('%s of an unknown reference is not found', async verb => {
    const result = await host.run(verb, UNKNOWN, '--json')
    expect(result.exitCode).toBe(4)
    expect(errorOf(result).code).toBe('not-found')
  })

  it('a fetch that nobody answers says so, and leaves no trace', async () => {
    const result = await host.run('fetch', UNKNOWN, '--json')
    expect(result.exitCode).toBe(4)
    expect(errorOf(result).code).toBe('no-provider')
    expect(await host.json('list')).toEqual([])
  })

  it('a fetch that takes longer than its caller waits goes on without', async () => {
    const patient = await TestDaemon.start({ env: { NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '600' } })
    const result = await patient.run('fetch', UNKNOWN, '--timeout', '0.5', '--json')
    expect(result.exitCode).toBe(7)
    expect(errorOf(result).code).toBe('timed-out')
    expect(await patient.json('transfers')).toHaveLength(1)
    await patient.json('rm', UNKNOWN)
    expect(await patient.json('transfers')).toEqual([])
    expect(await patient.json('list')).toEqual([])
  })

  const specials: [string, (path: string) => Promise<unknown>][] = [
    ['fifo', path => execa('mkfifo', [path])],
    ['device', path => execa('mknod', [path, 'c', '1', '3'])],
    ['socket', async path => {
      const server = createServer()
      await new Promise<void>(resolve => server.listen(path, resolve))
      server.unref()
    }],
  ]
  it.each(specials)('a %s in the tree is refused by its name', async (_kind, make) => {
    const tree = await temporaryDirectory()
    await mkdir(join(tree, 'sub'))
    await make(join(tree, 'sub', 'special'))
    const result = await host.run('import', tree, '--json')
    expect(result.exitCode).toBe(1)
    expect(errorOf(result)).toMatchObject({ code: 'unsupported-file', message: expect.stringContaining('sub/special') as string })
    expect(await host.json('list')).toEqual([])
  })

  it('a file that the daemon may not read is named', async () => {
    const dir = await temporaryDirectory()
    const home = join(dir, 'home')
    const tree = join(dir, 'tree')
    await mkdir(home)
    await mkdir(tree)
    await writeFile(join(tree, 'secret'), 'x')
    await chmod(join(tree, 'secret'), 0)
    await chmod(dir, 0o755)
    await chown(home, 65534, 65534)
    const nobody = await TestDaemon.start({ dir: home, user: { uid: 65534, gid: 65534 } })
    const result = await nobody.run('import', tree, '--json')
    expect(result.exitCode).toBe(1)
    expect(errorOf(result)).toMatchObject({ code: 'unreadable', message: expect.stringContaining('secret') as string })
  })

  it('a file that grows all the time it is imported is noticed', async () => {
    const tree = await temporaryDirectory()
    const file = join(tree, 'log')
    await writeFile(file, Buffer.alloc(64 * 1024 * 1024, 1))
    const handle = await open(file, 'a')
    const done = new AbortController()
    const writer = (async () => { while (!done.signal.aborted) await handle.write('more') })()
    const result = await host.run('import', tree, '--json')
    done.abort()
    await writer
    await handle.close()
    expect(result.exitCode).toBe(1)
    expect(errorOf(result).code).toBe('changed-while-reading')
    expect(await host.json('list')).toEqual([])
  })

  it('a name that another image has is refused; the same tree again is the same image', async () => {
    const dir = await temporaryDirectory()
    await makeOddTree(join(dir, 'one'))
    await writeFile(join(dir, 'two'), 'two')
    const first = await host.json<ImageJson>('import', join(dir, 'one'), '--name', 'golden')
    const taken = await host.run('import', join(dir, 'two'), '--name', 'golden', '--json')
    expect(taken.exitCode).toBe(1)
    expect(errorOf(taken)).toMatchObject({ code: 'name-taken', message: expect.stringContaining(first.narHash) as string })
    expect(await host.json('import', join(dir, 'one'), '--name', 'golden')).toEqual(first)
    expect(await host.json('list')).toEqual([first])
    await host.json('rm', 'golden')
  })

  it('a full disk is said before and while an image is received, and loses nothing', async () => {
    const dir = await temporaryDirectory()
    const small = join(dir, 'small')
    await mkdir(small)
    await execa('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', small])
    try {
      const giver = peer
      const taker = await TestDaemon.start({ dataDir: join(small, 'data'), bootstrap: [giver], env: { NARVIK_SPACE_MIN_FREE: '0' } })
      await taker.untilPeers(1)
      await writeFile(join(dir, 'fits'), Buffer.alloc(4 * 1024 * 1024, 'a'))
      await writeFile(join(dir, 'too-large'), Buffer.alloc(32 * 1024 * 1024, 'b'))
      const fits = await giver.json<ImageJson>('import', join(dir, 'fits'))
      const tooLarge = await giver.json<ImageJson>('import', join(dir, 'too-large'))
      await taker.json('fetch', fits.narHash)
      const result = await taker.run('fetch', tooLarge.narHash, '--json')
      expect(result.exitCode).toBe(1)
      expect(errorOf(result).code).toBe('disk-full')
      expect(errorOf(await taker.run('import', join(dir, 'too-large'), '--json')).code).toBe('disk-full')
      expect(await taker.json<ImageJson>('show', fits.narHash)).toMatchObject({ state: 'verified' })
      expect((await taker.json<{ results: unknown[] }>('verify', '--all')).results).toEqual([expect.objectContaining({ verdict: 'pass' })])
      await taker.stop()
    } finally {
      await execa('umount', ['-l', small])
    }
  })

  it('no daemon at the socket', async () => {
    const result = await runCli(['list', '--json', '--socket', join(await temporaryDirectory(), 'none.sock')])
    expect(result.exitCode).toBe(3)
    expect(errorOf(result).code).toBe('unreachable')
  })

  it.each([['fetch', '../../etc'], ['import'], ['fetch', UNKNOWN, '--timeout', 'soon'], ['conquer']])('a wrong command line: %s %s', async (...args) => {
    const result = await host.run(...args, '--json')
    expect(result.exitCode).toBe(2)
    expect(errorOf(result).code).toBe('invalid-argument')
  })

  it('a second daemon on the same data directory is refused', async () => {
    await expect(TestDaemon.start({ dir: await temporaryDirectory(), dataDir: host.dataDir })).rejects.toThrow(/in-use|another/i)
    expect(await host.json('list')).toEqual([])
  })
})
