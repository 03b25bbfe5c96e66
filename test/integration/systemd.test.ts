import { readdirSync } from 'node:fs'
import { copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makePackage } from '../../scripts/package.ts'
import { until } from '../helpers/fleet.ts'
import { canBoot, Machine } from '../helpers/machine.ts'
import { temporaryDirectory } from '../helpers/temporary.ts'

const SEED_SOCKET = '/run/seed/narvik.sock'
const NODE = '/usr/lib/narvik/node_modules/.bin/node'
/**
 * The data directory, without its key, of a daemon whose catalog had 5 migrations; the manifests were without chunks. It has two images: a
 * directory that is called web-1, and a file without a name.
 */
const OLDER_DATA = new URL('../fixtures/older-data.tar.gz', import.meta.url)
const MIGRATIONS = readdirSync(new URL('../../src/store/migrations', import.meta.url)).length

/** The package under a real systemd. One machine for all: each test goes on from where the one before it has left it. */
describe.skipIf(!canBoot() && process.env.CI === undefined)('the service on a bare Debian', { timeout: 300_000 }, () => {
  let machine: Machine

  beforeAll(async () => {
    machine = await Machine.boot()
  }, 600_000)
  afterAll(async () => { await machine.end() })

  async function install(version: string): Promise<void> {
    const file = makePackage({ version, out: await temporaryDirectory(), compression: 'none' })
    await copyFile(file, join(machine.root, 'narvik.deb'))
    await machine.get('dpkg', '-i', '/narvik.deb')
  }

  test('is installed, started and ready, as its own user', async () => {
    await install('0.1.0')
    expect(await machine.property('ActiveState')).toBe('active')
    expect(await machine.property('StatusText')).toMatch(/^0 peers, 0 images verified/)
    expect(await machine.get('narvik', 'status')).toContain('/var/lib/narvik')
    expect(await machine.get('stat', '-c', '%U', `/proc/${await machine.property('MainPID')}`)).toBe('narvik')
    expect(await machine.get('stat', '-c', '%U %a', '/var/lib/narvik', '/run/narvik', '/var/lib/narvik/identity.key', '/var/lib/narvik/quarantine')).toBe('narvik 755\nnarvik 750\nnarvik 600\nnarvik 700')
    expect(await machine.get('bash', '-c', 'source /usr/share/bash-completion/completions/narvik && complete -p narvik')).toContain('_narvik')
    await machine.get(NODE, '-e', `require('http').get({ socketPath: '/run/narvik/narvik.sock', path: '/page/lib/directives/repeat.js' }, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1))`)
  })

  test('has settings that systemd thinks little of attacking, and a journal with levels and fields', async () => {
    await machine.get('systemd-analyze', 'security', '--offline=true', '--threshold=20', '/lib/systemd/system/narvikd.service')
    // Every line of the service's own is a document, as those expect who pipe them into jq.
    const lines = (await machine.get('journalctl', '_SYSTEMD_UNIT=narvikd.service', '-o', 'cat')).split('\n').map(line => JSON.parse(line) as Record<string, string>)
    const { peerId, addresses } = await machine.client().status()
    expect(lines.find(({ msg }) => msg === 'ready')).toMatchObject({ level: 'info', version: '0.1.0', peerId, addresses, socket: '/run/narvik/narvik.sock', dataDir: '/var/lib/narvik' })
  })

  test('is not said to be started before it listens, and is at once when it is', async () => {
    await writeFile(machine.path('/etc/narvik/narvik.toml'), 'listen = ["/ip4/127.0.0.1/tcp/4777"]\n')
    const connect = `require('net').connect(4777, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(1))`
    await machine.get('systemd-run', '--unit=blocker', NODE, '-e', `require('net').createServer().listen(4777, '127.0.0.1')`)
    await until(async () => (await machine.run(NODE, '-e', connect)).exitCode === 0, 'the port to be taken')
    expect((await machine.run('systemctl', 'restart', 'narvikd')).exitCode).not.toBe(0)
    expect(await machine.property('ActiveState')).not.toBe('active')
    expect(await machine.get('journalctl', '-u', 'narvikd', '-o', 'cat')).toContain('Cannot listen on /ip4/127.0.0.1/tcp/4777')
    await machine.get('systemctl', 'stop', 'blocker')
    await machine.get('systemctl', 'restart', 'narvikd')
    expect(await machine.client().status()).toMatchObject({ addresses: [expect.stringContaining('/tcp/4777/')] })
    expect((await machine.run(NODE, '-e', connect)).exitCode).toBe(0)
    await machine.get('rm', '/etc/narvik/narvik.toml')
    await machine.get('systemctl', 'restart', 'narvikd')
  })

  test('takes the fleet\'s key as a credential, which nobody else can read', async () => {
    await machine.get('mkdir', '-p', '/etc/credstore')
    await machine.get('narvik', 'fleet', 'create', '/etc/credstore/narvik.fleet.key')
    await machine.get('systemctl', 'restart', 'narvikd')
    expect((await machine.client().status()).fleet).toBe(true)
    expect(await machine.get('stat', '-c', '%U %a', '/etc/credstore/narvik.fleet.key')).toBe('root 600')
  })

  test('is reloaded: what needs a restart is said, and a file with a mistake changes nothing', async () => {
    const pid = await machine.property('MainPID')
    const journalHas = (text: string) => async (): Promise<boolean> => (await machine.get('journalctl', '-u', 'narvikd', '-o', 'cat')).includes(text)
    await writeFile(machine.path('/etc/narvik/narvik.toml'), 'listen = ["/ip4/127.0.0.1/tcp/4650"]\n')
    await machine.get('systemctl', 'reload', 'narvikd')
    await until(journalHas('restart'), 'what needs a restart')
    await writeFile(machine.path('/etc/narvik/narvik.toml'), 'lisen = []\n')
    await machine.get('systemctl', 'reload', 'narvikd')
    await until(journalHas('line 1'), 'the mistake')
    await until(async () => await machine.property('ActiveState') === 'active', 'the reload to be over')
    expect(await machine.property('MainPID')).toBe(pid)
    // The level of each line is its priority.
    expect(await machine.get('journalctl', '-u', 'narvikd', '-p', 'err', '-o', 'cat')).toContain('line 1')
    expect(await machine.get('journalctl', '-u', 'narvikd', '-p', 'err', '-o', 'cat')).not.toContain('"msg":"ready"')
    await machine.get('rm', '/etc/narvik/narvik.toml')
  })

  test('is killed by the watchdog when it hangs, and comes back', async () => {
    await machine.get('mkdir', '-p', '/etc/systemd/system/narvikd.service.d')
    await writeFile(machine.path('/etc/systemd/system/narvikd.service.d/short.conf'), '[Service]\nWatchdogSec=8\nTimeoutAbortSec=3\n')
    await machine.get('systemctl', 'daemon-reload')
    await machine.get('systemctl', 'restart', 'narvikd')
    const pid = await machine.property('MainPID')
    await machine.get('sh', '-c', `kill -STOP ${pid}`)
    await until(async () => await machine.property('NRestarts') === '1' && await machine.property('ActiveState') === 'active', 'a restart')
    expect(await machine.property('MainPID')).not.toBe(pid)
    expect(await machine.get('journalctl', '-u', 'narvikd', '-o', 'cat')).toMatch(/Watchdog timeout/)
    expect((await machine.client().status()).version).toBe('0.1.0')
  })

  test('stops in the middle of a transfer within its time, and goes on after it', async () => {
    const unit = ['systemd-run', '--unit=seed', '--property=RuntimeDirectory=seed', '--setenv=NARVIK_MDNS=false', 'narvik', 'daemon',
      '--data-dir', '/var/lib/seed', '--socket', SEED_SOCKET, '--fleet-key', '/etc/credstore/narvik.fleet.key', '--listen', '/ip4/127.0.0.1/tcp/4999']
    await machine.get(...unit)
    const seed = machine.client(SEED_SOCKET)
    await until(() => seed.status().then(() => true, () => false), 'the seed')
    await machine.get('dd', 'if=/dev/urandom', 'of=/var/lib/image', 'bs=1M', 'count=768')
    const { narHash } = await seed.import({ path: '/var/lib/image' })
    await writeFile(machine.path('/etc/narvik/narvik.toml'), `bootstrap = ["/ip4/127.0.0.1/tcp/4999/p2p/${(await seed.status()).peerId}"]\n`)
    await machine.get('systemctl', 'restart', 'narvikd')
    const fetching = machine.client().fetch({ ref: narHash }, { signal: AbortSignal.timeout(60_000) }).then(() => 'done', () => 'interrupted')
    await until(async () => (await machine.client().transfers()).some(({ phase, bytes }) => phase === 'receiving' && bytes > 0), 'the first bytes')
    await machine.get('systemctl', 'stop', 'narvikd')
    expect(await machine.property('Result')).toBe('success')
    expect(await fetching).toBe('interrupted')
    await machine.get('systemctl', 'start', 'narvikd')
    await until(async () => (await machine.client().show(narHash)).state === 'verified', 'the image')
    await machine.get('systemctl', 'stop', 'seed')
  })

  test('is upgraded: the data stays, and the new program runs', async () => {
    const before = await machine.client().status()
    await install('0.1.1')
    const after = await machine.client().status()
    expect(after).toMatchObject({ version: '0.1.1', peerId: before.peerId, images: before.images })
    expect(before.images.verified).toBe(1)
  })

  test('is upgraded from a catalog of an older schema: it is migrated, and all that was in it stays', async () => {
    const { peerId } = await machine.client().status()
    await machine.get('systemctl', 'stop', 'narvikd')
    await machine.get('sh', '-c', 'cd /var/lib/narvik && rm -rf catalog.db* images by-name quarantine gcroots')
    await copyFile(OLDER_DATA, join(machine.root, 'older-data.tar.gz'))
    await machine.get('sh', '-c', 'tar -xzf /older-data.tar.gz -C /var/lib/narvik && chown -R narvik:narvik /var/lib/narvik && chmod 755 /var/lib/narvik')
    expect(askCatalog(machine, 'PRAGMA user_version')).toBe(5)
    await install('0.1.2')
    expect(askCatalog(machine, 'PRAGMA user_version')).toBe(MIGRATIONS)
    const client = machine.client()
    expect(await client.status()).toMatchObject({ version: '0.1.2', peerId, images: { verified: 2, rejected: 0, quarantined: 0 } })
    const { narHash, journal, path } = await client.show('web-1')
    expect([narHash, journal[0]]).toEqual(['sha256-YrK1ZGubyt+P3F0JT+aDidwOWw6EHWP/CV6ZAj35ZqM=', expect.objectContaining({ at: new Date(1795369938777).toISOString(), event: 'create' })])
    expect(await machine.get('readlink', '-f', '/var/lib/narvik/by-name/web-1')).toBe(path)
    // What the older one could not do is done with what it left: the manifests have chunks, and all of it is proven.
    await until(() => machine.get('narvik', 'verify', '--all').then(() => true, () => false), 'the proof of all images')
    await until(() => Promise.resolve(askCatalog(machine, 'SELECT count(*) FROM images WHERE manifest_digest IS NOT NULL') === 2), 'new manifests')
    await machine.get('sh', '-c', 'echo new > /var/lib/new && narvik import /var/lib/new --name web-2')
    expect((await client.status()).images.verified).toBe(3)
  })

  test('is removed with its data left behind, and purged with nothing left', async () => {
    await machine.get('dpkg', '--remove', 'narvik')
    expect(await machine.get('sh', '-c', 'ls -d /usr/lib/narvik /usr/bin/narvik /lib/systemd/system/narvikd.service 2>/dev/null || true')).toBe('')
    expect(await machine.get('ls', '/var/lib/narvik')).toContain('catalog.db')
    await machine.get('dpkg', '--purge', 'narvik')
    expect(await machine.get('sh', '-c', 'ls -d /var/lib/narvik /var/cache/narvik /etc/systemd/system/multi-user.target.wants/narvikd.service 2>/dev/null || true')).toBe('')
    expect((await machine.run('dpkg', '-s', 'narvik')).exitCode).not.toBe(0)
  })
})

/** One number out of the catalog of the service. */
function askCatalog(machine: Machine, question: string): unknown {
  const catalog = new SqliteDatabase(join(machine.root, 'var/lib/narvik/catalog.db'), { readonly: true })
  try {
    return catalog.prepare(question).pluck().get()
  } finally {
    catalog.close()
  }
}
