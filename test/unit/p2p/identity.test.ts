import { execFile } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { loadIdentity, newIdentity, peerIdOf } from '../../../src/p2p/identity.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

describe('loadIdentity', () => {
  it('makes a key once, for its user only, and leaves nothing else', async () => {
    const directory = await temporaryDirectory()
    const file = join(directory, 'identity.key')
    const first = await loadIdentity(file)
    expect(peerIdOf(first)).toMatch(/^12D3KooW/)
    expect(Buffer.compare(await loadIdentity(file), first)).toBe(0)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await readdir(directory)).toEqual(['identity.key'])
  })

  it('gives all who start at once the same key', async () => {
    const file = join(await temporaryDirectory(), 'identity.key')
    const keys = await Promise.all(Array.from({ length: 8 }, () => loadIdentity(file)))
    expect(new Set(keys.map(peerIdOf)).size).toBe(1)
  })

  it.each([0o640, 0o604, 0o610, 0o601, 0o777])('refuses a file of mode %o, and says which is needed', async mode => {
    const file = join(await temporaryDirectory(), 'identity.key')
    await loadIdentity(file)
    await chmod(file, mode)
    await expectFailure(loadIdentity(file), 'refused', new RegExp(`found mode 0${mode.toString(8)}, needed 0600`))
  })

  it('takes a file that is read-only', async () => {
    const file = join(await temporaryDirectory(), 'identity.key')
    const key = await loadIdentity(file)
    await chmod(file, 0o400)
    expect(peerIdOf(await loadIdentity(file))).toBe(peerIdOf(key))
  })

  it('refuses a damaged file, and leaves it as it is', async () => {
    const file = join(await temporaryDirectory(), 'identity.key')
    await loadIdentity(file)
    await truncate(file, 30)
    await expectFailure(loadIdentity(file), 'invalid-config', /found 30 bytes, needed 68/)
    expect(await readFile(file)).toHaveLength(30)
  })

  it('refuses every flipped byte of the key', async () => {
    const file = join(await temporaryDirectory(), 'identity.key')
    const key = await newIdentity()
    for (let index = 0; index < key.length; index++) {
      await writeFile(file, key.map((byte, at) => at === index ? byte ^ 1 : byte), { mode: 0o600 })
      await expectFailure(loadIdentity(file), 'invalid-config', /needed an Ed25519 key/)
    }
  })

  it('refuses a longer file, a directory and a fifo', async () => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'long'), new Uint8Array(1000), { mode: 0o600 })
    await expectFailure(loadIdentity(join(directory, 'long')), 'invalid-config', /more than 68 bytes/)
    await mkdir(join(directory, 'dir'), { mode: 0o700 })
    await expectFailure(loadIdentity(join(directory, 'dir')), 'invalid-config', /no file/)
    await promisify(execFile)('mkfifo', ['-m', '600', join(directory, 'fifo')])
    await expectFailure(loadIdentity(join(directory, 'fifo')), 'invalid-config', /no file/)
  })

  it('says where it can not write', async () => {
    await expectFailure(loadIdentity(join(await temporaryDirectory(), 'absent', 'identity.key')), 'not-found', /Cannot write the identity/)
  })
})
