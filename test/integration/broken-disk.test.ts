import { rm, truncate, writeFile } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { execa } from 'execa'
import { describe, expect, it, onTestFinished } from 'vitest'
import { expectSettled } from '../helpers/daemon-invariants.ts'
import { temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'

const MIB = 1024 * 1024
const DISK_BYTES = 128 * MIB
/** The disk is small: none of it has to stay free. */
const ROOMY = { NARVIK_SPACE_MIN_FREE: '0' }

/** A disk of its own for a daemon: ext4 on a file. */
interface Disk {
  readonly dir: string
  readonly image: string
  mount(): Promise<void>
  unmount(): Promise<void>
  /** Makes what lies behind so many bytes unreadable, or readable again. */
  resize(bytes: number): Promise<void>
}

/** It takes root and a loop device; a run in CI without them is red. */
const canMount = process.getuid?.() === 0 || process.env.CI !== undefined

describe.skipIf(!canMount)('a disk that fails', () => {
  it('and is full when the daemon starts is said, and what there is comes up once there is room', async () => {
    const disk = await temporaryDirectory()
    await execa('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk])
    onTestFinished(async () => { await execa('umount', ['--lazy', disk]) })
    const options = { dataDir: join(disk, 'data'), env: ROOMY }
    const host = await TestDaemon.start(options)
    await importRandom(host, MIB, 'kept')
    await host.stop()
    await execa('dd', ['if=/dev/zero', `of=${disk}/filler`, 'bs=1M'], { reject: false })
    const failure: unknown = await TestDaemon.start({ ...options, dir: host.dir }).catch((error: unknown) => error)
    expect(String(failure)).toMatch(/"code":"disk-full".*Make room on the disk/)
    await rm(join(disk, 'filler'))
    const again = await TestDaemon.start({ ...options, dir: host.dir })
    expect((await again.client.verify({ all: true })).results).toMatchObject([{ name: 'kept', verdict: 'pass' }])
    await again.stop()
  })

  it('and becomes read-only is said, what is there is served, and nothing is lost', async () => {
    const disk = await makeDisk()
    const peer = await TestDaemon.start()
    const host = await TestDaemon.start({ dataDir: join(disk.dir, 'data'), bootstrap: [peer], env: ROOMY })
    await host.untilPeers(1)
    const kept = await importRandom(host, MIB, 'kept')
    const wanted = await importRandom(peer, MIB, 'wanted')
    // What the kernel does of itself once the file system has failed in earnest.
    await execa('mount', ['-o', 'remount,abort', disk.dir])

    for (const args of [['fetch', wanted], ['import', '/etc/hostname'], ['pin', 'kept'], ['rm', 'kept']]) {
      const { exitCode, stdout } = await host.run(...args, '--json')
      expect(exitCode, args.join(' ')).toBe(1)
      const { error } = JSON.parse(stdout) as { error: { code: string, message: string, hint?: string } }
      expect(error.code, error.message).toBe('io-error')
      expect(error.message).toMatch(/read-only|disk I\/O error/)
      expect(error.hint).toContain('dmesg')
    }
    expect(await host.client.list()).toMatchObject([{ name: 'kept', state: 'verified' }])
    // It did not go, so that the fleet still learns of it.
    expect(await peer.client.fetch({ ref: kept })).toMatchObject({ state: 'verified' })

    // The way back, as docs/OPERATIONS.md has it.
    await host.stop()
    await disk.unmount()
    await execa('fsck.ext4', ['-fy', disk.image], { reject: false })
    await disk.mount()
    const again = await TestDaemon.start({ dir: host.dir, dataDir: host.dataDir, bootstrap: [peer], env: ROOMY })
    await again.untilPeers(1)
    expect((await again.client.verify({ all: true })).results).toMatchObject([{ narHash: kept, verdict: 'pass' }])
    expect(await again.client.fetch({ ref: wanted })).toMatchObject({ state: 'verified' })
    await expectSettled(again)
    await again.stop()
  })

  it('and can\'t read some of an image is found out, whoever reads it; the image is brought back from the fleet, and others stay', async () => {
    // The journal would lie in the middle of what can't be read.
    const disk = await makeDisk('-O', '^has_journal')
    const peer = await TestDaemon.start()
    const host = await TestDaemon.start({ dataDir: join(disk.dir, 'data'), bootstrap: [peer], env: ROOMY })
    await host.untilPeers(1)
    const small = await importRandom(host, 1000, 'small')
    const large = await importRandom(peer, 16 * MIB, 'large')
    const { path } = await host.client.fetch({ ref: large, name: 'large' })
    // The file's last blocks are the last of the disk: it is cut off below them, and they go out of the cache.
    await execa('sync', ['-f', disk.dir])
    await disk.resize(await lastBlock(path ?? '') - 4 * MIB)
    await execa('dd', [`if=${path ?? ''}`, 'iflag=nocache', 'count=0'])
    await expect(execa('md5sum', [path ?? ''])).rejects.toThrow(/Input\/output error/)

    const { results } = await host.client.verify({ all: true })
    expect(Object.fromEntries(results.map(({ narHash, verdict }) => [narHash, verdict]))).toEqual({ [small]: 'pass', [large]: 'fail' })
    expect(await host.client.show('large')).toMatchObject({ state: 'rejected', path: null, reason: expect.stringContaining('EIO') as string })
    expect((await host.client.show('large')).reason).not.toContain(disk.dir)
    // Another disk, in its place.
    await disk.resize(DISK_BYTES)
    expect(await host.client.fetch({ ref: large })).toMatchObject({ state: 'verified' })
    expect((await host.client.verify({ all: true })).results.map(({ verdict }) => verdict)).toEqual(['pass', 'pass'])
    await host.stop()
  })
})

async function makeDisk(...options: string[]): Promise<Disk> {
  const top = await temporaryDirectory()
  const [dir, image] = [join(top, 'disk'), join(top, 'disk.img')]
  const disk: Disk = {
    dir, image,
    mount: async () => { await execa('mount', ['-o', 'loop', image, dir]) },
    unmount: async () => { await execa('umount', [dir]) },
    resize: async bytes => {
      await truncate(image, bytes)
      await execa('losetup', ['-c', (await execa('findmnt', ['-no', 'SOURCE', dir])).stdout])
    },
  }
  await writeFile(image, '')
  await truncate(image, DISK_BYTES)
  await execa('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', ...options, image])
  await execa('mkdir', [dir])
  await disk.mount()
  onTestFinished(async () => { await execa('umount', ['-l', dir], { reject: false }) })
  return disk
}

async function importRandom(host: TestDaemon, size: number, name: string): Promise<string> {
  const path = join(await temporaryDirectory(), 'image')
  await writeFile(path, randomBytes(size))
  return (await host.client.import({ path, name })).narHash
}

/** Bytes from the start of the disk to the end of a file's last block. */
async function lastBlock(path: string): Promise<number> {
  const { stdout } = await execa('filefrag', ['-v', '-b4096', path])
  const ends = [...stdout.matchAll(/^ *\d+: +\d+\.\. +\d+: +\d+\.\. +(\d+):/gm)].map(([, end]) => Number(end))
  return (Math.max(...ends) + 1) * 4096
}
