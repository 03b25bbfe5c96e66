import { execFile } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { createFleetKey, fleetFingerprint, readFleetKey } from '../../src/fleet-key.ts'
import { expectFailure } from '../helpers/failure.ts'
import { temporaryDirectory } from '../helpers/temporary.ts'

const run = promisify(execFile)

async function place(contents: string | Uint8Array, mode = 0o600): Promise<string> {
  const file = join(await temporaryDirectory(), 'fleet.key')
  await writeFile(file, contents, { mode })
  await chmod(file, mode)
  return file
}

const RANDOM = '9f3c1d6a8b52e7047dcf0a91b6e8345fc2170bd3ea694f8815a2c7de30b94f61'

describe('a new fleet key', () => {
  test('in a directory that is not there: what to do is said, and nothing is made', async () => {
    const directory = await temporaryDirectory()
    await expectFailure(createFleetKey(join(directory, 'absent', 'fleet.key')), 'not-found', new RegExp(`found no directory ${directory}/absent, needed it`))
    await expect(createFleetKey(join(directory, 'absent', 'fleet.key'))).rejects.toMatchObject({ hint: `Make it: mkdir -p -m 0700 ${directory}/absent` })
    expect(await readdir(directory)).toEqual([])
  })

  test('is for its owner alone whatever the umask, is read back, and leaves nothing beside it', async () => {
    const before = process.umask(0o000)
    try {
      const file = join(await temporaryDirectory(), 'fleet.key')
      const key = await createFleetKey(file)
      expect((await stat(file)).mode & 0o777).toBe(0o600)
      expect(await readFleetKey(file)).toEqual(Uint8Array.from(key))
      expect(await readdir(join(file, '..'))).toEqual(['fleet.key'])
    } finally {
      process.umask(before)
    }
  })

  test('does not overwrite what is there', async () => {
    const file = await place('precious')
    await expectFailure(createFleetKey(file), 'conflict', /found a file of that name/)
    expect(await readFile(file, 'utf8')).toBe('precious')
  })

  test('is made once where two are asked for at the same time', async () => {
    const file = join(await temporaryDirectory(), 'fleet.key')
    const results = await Promise.allSettled([createFleetKey(file), createFleetKey(file), createFleetKey(file)])
    const made = results.filter(result => result.status === 'fulfilled').map(({ value }) => fleetFingerprint(value))
    expect(made).toEqual([fleetFingerprint(await readFleetKey(file))])
  })
})

describe('the file of a fleet key', () => {
  test.each([
    ['hex with a new line', `${RANDOM}\n`],
    ['hex in capitals', RANDOM.toUpperCase()],
    ['the bytes', Buffer.from(RANDOM, 'hex')],
  ])('may have %s', async (_what, contents) => {
    expect(Buffer.from(await readFleetKey(await place(contents))).toString('hex')).toBe(RANDOM)
  })

  test.each([
    ['a passphrase', 'correct horse battery staple'],
    ['a passphrase of 32 characters', 'correct horse battery staple 123'],
    ['a passphrase in hex', Buffer.from('correct horse battery staple 123').toString('hex')],
    ['zeros', new Uint8Array(32)],
    ['zeros in hex', '0'.repeat(64)],
    ['a pattern', '0123456789abcdef'.repeat(4)],
    ['nothing', ''],
    ['31 bytes', Buffer.from(RANDOM, 'hex').subarray(1)],
    ['33 bytes', Buffer.from(`${RANDOM}ff`, 'hex')],
    ['too much', RANDOM.repeat(100)],
  ])('may not have %s, and the message shows nothing of it', async (_what, contents) => {
    const failure = readFleetKey(await place(contents))
    await expectFailure(failure, 'invalid-config', /needed 32 bytes from a generator, or their 64 hex characters/)
    await expect(failure).rejects.not.toThrow(/horse|0000|cdef|9f3c/)
  })

  test.each([0o640, 0o604, 0o620, 0o644])('is refused with mode %o', async mode => {
    await expectFailure(readFleetKey(await place(RANDOM, mode)), 'refused', /needed 0600/)
  })

  test('that is not there is told of with what to do', async () => {
    const file = join(await temporaryDirectory(), 'absent')
    await expectFailure(readFleetKey(file), 'not-found', /found no such file/)
    await expect(readFleetKey(file)).rejects.toMatchObject({ hint: expect.stringContaining('narvik fleet create') as string })
  })

  test('may be no directory and no fifo, for which nobody waits', async () => {
    const directory = await temporaryDirectory()
    await mkdir(join(directory, 'a'))
    await run('mkfifo', ['-m', '600', join(directory, 'b')])
    for (const name of ['a', 'b']) await expectFailure(readFleetKey(join(directory, name)), 'invalid-config', /no file/)
  })
})
