import { createHash } from 'node:crypto'
import { cp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { execa } from 'execa'
import { beforeAll, describe, expect, it } from 'vitest'
import { expectSettled } from '../helpers/daemon-invariants.ts'
import { temporaryDirectory, TestDaemon, until } from '../helpers/fleet.ts'

const ROOT = new URL('../..', import.meta.url).pathname
const PAGE = 4096

/** A data directory as a kill has left it: with a log, and something in the database itself. */
let left = ''
let backup = ''
beforeAll(async () => {
  const dir = await temporaryDirectory()
  for (const name of ['web', 'secret', 'other']) await writeFile(join(dir, name), name.repeat(1000))
  const host = await TestDaemon.start({ dir })
  await host.client.import({ path: join(dir, 'web'), name: 'web' })
  await host.client.import({ path: join(dir, 'secret'), name: 'secret', private: true })
  backup = join(dir, 'backup.db')
  // As the page has it with the program sqlite3, which calls the same.
  const database = new SqliteDatabase(join(host.dataDir, 'catalog.db'), { readonly: true })
  await database.backup(backup)
  database.close()
  await host.stop()
  const again = await TestDaemon.start({ dir })
  await again.client.import({ path: join(dir, 'other'), name: 'other' })
  await again.kill('SIGKILL')
  left = again.dataDir
})

/** A copy of what was left, in a directory for a daemon. */
async function copyOfLeft(): Promise<{ dir: string, catalog: string }> {
  const dir = await temporaryDirectory()
  await cp(left, join(dir, 'data'), { recursive: true, preserveTimestamps: true, verbatimSymlinks: true })
  return { dir, catalog: join(dir, 'data', 'catalog.db') }
}

/** Ways in which a catalog gets lost, and what the daemon says of it. */
const DAMAGES: Record<string, { damage: (catalog: string) => Promise<unknown>, found: RegExp }> = {
  'an empty file': { damage: catalog => truncate(catalog, 0), found: /found an empty file/ },
  'a file that was cut off': { damage: catalog => truncate(catalog, 5 * PAGE), found: /found it damaged|malformed/ },
  'a page of something else': { damage: catalog => overwrite(catalog, 2 * PAGE, 20 * PAGE), found: /found it damaged|malformed/ },
  'a file that is no database': { damage: catalog => overwrite(catalog, 0, PAGE), found: /file is not a database/ },
  'a log without its database': { damage: catalog => rm(catalog), found: /found .*catalog\.db-wal without it/ },
  'a newer catalog': { damage: catalog => { change(catalog, 'PRAGMA user_version = 900'); return Promise.resolve() }, found: /found version 900, needed \d+ or older/ },
  'a catalog without a version': { damage: catalog => { change(catalog, 'PRAGMA user_version = 0'); return Promise.resolve() }, found: /found version 0, needed 1 to \d+/ },
  'the database of another program': { damage: catalog => { change(catalog, 'PRAGMA application_id = 7'); return Promise.resolve() }, found: /found a database of another program/ },
}

describe('a corrupted catalog', () => {
  it.each(Object.entries(DAMAGES))('%s is told of, with what to do, and left as it is', async (_what, { damage, found }) => {
    const { dir, catalog } = await copyOfLeft()
    await damage(catalog)
    const before = await fingerprint(catalog)
    for (let attempt = 0; attempt < 2; attempt++) {
      const refused = await TestDaemon.start({ dir }).then(() => undefined, (error: unknown) => error as Error)
      expect(refused?.message).toContain('corrupt-catalog')
      expect(refused?.message).toMatch(found)
      expect(refused?.message).toMatch(/"hint":"(Move catalog\.db|Give the daemon|It was written by a newer)/)
      expect(await fingerprint(catalog)).toEqual(before)
    }
  })

  it('that has lost its log is an older one, which is made to agree with the files', async () => {
    const { dir, catalog } = await copyOfLeft()
    await rm(`${catalog}-wal`)
    const host = await TestDaemon.start({ dir })
    await expectSettled(host)
    expect(await namesOf(host)).toEqual(expect.arrayContaining(['secret', 'web']))
    expect((await host.client.show('secret')).private).toBe(true)
  })
})

describe('the way back from a corrupted catalog, as docs/OPERATIONS.md has it', () => {
  it('without anything that could be saved brings back the images, their names, and nobody else\'s right to them', async () => {
    const { dir, catalog } = await copyOfLeft()
    await overwrite(catalog, 0, 1000 * PAGE)
    const host = await rehearse(dir, { skip: /srv\/backup/ })
    await untilJudged(host)
    expect(await namesOf(host)).toEqual(['other', 'secret', 'web'])
    for (const { name, state, private: isPrivate } of await host.client.list()) expect([name, state, isPrivate]).toEqual([name, 'verified', name !== 'web'])
    await expectSettled(host)
  })

  it('with a backup takes up what came since', async () => {
    const { dir, catalog } = await copyOfLeft()
    await truncate(catalog, 0)
    const host = await rehearse(dir, { skip: /private web/ })
    await untilJudged(host)
    expect(await namesOf(host)).toEqual(['other', 'secret', 'web'])
    for (const { name, private: isPrivate } of await host.client.list()) expect([name, isPrivate]).toEqual([name, name !== 'web'])
    await expectSettled(host)
  })
})

/** Runs the commands of the page on a data directory, but for those of another case and those for the Nix store; answers with the daemon. */
async function rehearse(dir: string, { skip }: { skip: RegExp }): Promise<TestDaemon> {
  const page = await readFile(join(ROOT, 'docs/OPERATIONS.md'), 'utf8')
  const section = page.slice(page.indexOf('### Corrupted catalog'))
  const commands = [...section.matchAll(/```sh\n(.*?)```/gs)].flatMap(([, block = '']) => block.trim().split('\n').map(line => line.trim()))
  expect(commands.length).toBe(9)
  let host: TestDaemon | undefined
  for (const command of commands) {
    if (command === 'systemctl stop narvikd' || skip.test(command) || command.includes('/nix/store')) continue
    if (command === 'systemctl start narvikd') {
      host = await TestDaemon.start({ dir })
      continue
    }
    const here = command
      .replaceAll('/var/lib/narvik', join(dir, 'data')).replace('/srv/backup/catalog.db', backup).replaceAll('/srv/', `${dir}/`)
      .replace('-o narvik -g narvik', '').replace(/^narvik (.*)/, `${join(ROOT, 'bin/narvik')} $1 --socket ${host?.socket ?? 'none'}`)
    if (host !== undefined && command.startsWith('narvik private')) await untilJudged(host)
    await execa('sh', ['-c', here])
  }
  if (host === undefined) throw new Error('the page does not start the daemon')
  return host
}

async function untilJudged(host: TestDaemon): Promise<void> {
  await until(async () => (await host.client.list()).every(({ state }) => state === 'verified'), 'all images to be verified')
}

async function namesOf(host: TestDaemon): Promise<(string | null)[]> {
  return (await host.client.list()).map(({ name }) => name).sort()
}

/** An empty log is none. */
async function fingerprint(catalog: string): Promise<string[]> {
  return Promise.all([catalog, `${catalog}-wal`].map(async file => createHash('sha256').update(await readFile(file).catch(() => '')).digest('hex')))
}

async function overwrite(file: string, at: number, length: number): Promise<void> {
  const handle = await open(file, 'r+')
  const { size } = await handle.stat()
  await handle.write(Buffer.alloc(Math.min(length, size - at), 0xa5), 0, undefined, at)
  await handle.close()
}

function change(catalog: string, sql: string): void {
  const database = new SqliteDatabase(catalog)
  database.exec(sql)
  database.close()
}
