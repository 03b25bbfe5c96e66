import { chmod, chown, mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { doctor } from '../../../src/cli/doctor/doctor.ts'
import type { Finding } from '../../../src/cli/doctor/finding.ts'
import { findSocket } from '../../../src/cli/socket.ts'
import type { PublishedNameJson } from '../../../src/control/api.ts'
import { ControlClient } from '../../../src/control/client.ts'
import { createFleetKey } from '../../../src/fleet-key.ts'
import { startControl } from '../../helpers/control.ts'
import { GOOD_HASH, goodStatus } from '../../helpers/fake-tasks.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

async function examine(env: NodeJS.ProcessEnv, socket: string | (() => string) = '/absent/narvik.sock'): Promise<{ verdicts: Record<string, string[]>, findings: readonly Finding[], failed: boolean }> {
  const outcome = await doctor({ HOME: '/absent', ...env })({
    json: true, client: () => new ControlClient({ socket: typeof socket === 'string' ? socket : socket() }), onProgress: () => undefined, stdin: process.stdin, stdoutIsTerminal: false,
  })
  if (!('json' in outcome)) throw new TypeError('no answer')
  const { findings } = outcome.json as { findings: readonly Finding[] }
  const verdicts = Object.groupBy(findings, ({ check }) => check)
  return { findings, failed: outcome.failure !== undefined, verdicts: Object.fromEntries(Object.entries(verdicts).map(([check, all = []]) => [check, all.map(({ verdict }) => verdict)])) }
}

describe('doctor', () => {
  test('says of everything that is not well what to do', async () => {
    const { findings } = await examine({})
    expect(findings.map(({ check }) => check)).toEqual(expect.arrayContaining(['config', 'daemon', 'fleet key', 'ports', 'dht', 'clock', 'disk', 'permissions', 'nix']))
    for (const { verdict, hint, check } of findings) if (verdict === 'fail') expect(hint, check).not.toBeNull()
  })

  test('of a host with a daemon asks the daemon', async () => {
    const { socket } = await startControl()
    const { verdicts } = await examine({}, socket)
    expect(verdicts).toMatchObject({ daemon: ['ok'], dht: ['ok'], nix: ['ok'] })
  })

  test('says which of the names that this host has published must be published again', async () => {
    const day = 24 * 3600 * 1000
    const name = (what: string, daysLeft: number, own = true): PublishedNameJson => ({
      name: what, publisher: `fleet:${Buffer.alloc(32).toString('base64')}`, narHash: GOOD_HASH, seq: 1, trusted: true, own,
      publishedAt: new Date(Date.now() - 30 * day).toISOString(), expiresAt: new Date(Date.now() + daysLeft * day).toISOString(),
    })
    const namesOf = async (...names: PublishedNameJson[]): Promise<Finding[]> => {
      const { socket } = await startControl({ names: () => names })
      return (await examine({}, socket)).findings.filter(({ check }) => check === 'names')
    }
    expect(await namesOf(name('theirs', 1, false))).toEqual([])
    expect(await namesOf(name('fresh', 30), name('theirs', 1, false))).toEqual([{ check: 'names', verdict: 'ok', detail: '1 published name, none of which expires soon', hint: null }])
    expect(await namesOf(name('fresh', 30), name('ending', 6), name('gone', -1))).toEqual([
      { check: 'names', verdict: 'warn', detail: expect.stringMatching(/^ending expires at /) as string, hint: `Publish it again: narvik publish ${GOOD_HASH} --name ending --key FILE` },
      { check: 'names', verdict: 'warn', detail: expect.stringMatching(/^gone expired at /) as string, hint: `Publish it again: narvik publish ${GOOD_HASH} --name gone --key FILE` },
    ])
  })

  test('of a host without one looks at what it would need', async () => {
    const directory = await temporaryDirectory()
    const key = join(directory, 'fleet.key')
    await createFleetKey(key)
    const env = { NARVIK_DATA_DIR: directory, NARVIK_FLEET_KEY_FILE: key, NARVIK_SOCKET: join(directory, 'narvik.sock') }
    const { verdicts, failed } = await examine(env)
    expect(verdicts).toMatchObject({ 'daemon': ['fail'], 'fleet key': ['ok'], 'ports': ['ok', 'warn'], 'dht': ['warn'], 'permissions': ['ok'] })
    expect(failed).toBe(true)
  })

  test('sees a port that another program has: of peers, of the metrics, of the page', async () => {
    const server = createServer()
    await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
    onTestFinished(() => { server.close() })
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    expect((await examine({ NARVIK_LISTEN: `/ip4/127.0.0.1/tcp/${port}` })).verdicts.ports).toEqual(['fail', 'warn'])
    for (const name of ['METRICS', 'PAGE']) {
      const { findings } = await examine({ [`NARVIK_${name}_PORT`]: String(port) })
      expect(findings).toContainEqual({ check: 'ports', verdict: 'fail', detail: expect.stringContaining(`${name.toLowerCase()}.port ${port}: listen EADDRINUSE`) as string, hint: `See who has it: ss -ltnp 'sport = :${port}'` })
    }
  })

  test('sees a data directory that others may write, which the daemon refuses', async () => {
    const directory = await temporaryDirectory()
    await chmod(directory, 0o777)
    const { findings } = await examine({ NARVIK_DATA_DIR: directory })
    expect(findings).toContainEqual({ check: 'permissions', verdict: 'fail', detail: `${directory} has mode 777: others can write the data directory, and the daemon refuses it`, hint: `chmod go-w ${directory}` })
  })

  test('says that fetches are paused, and why', async () => {
    const { socket } = await startControl({ status: () => ({ ...goodStatus, paused: 'less than 1 GiB is free' }) })
    expect((await examine({}, socket)).findings).toContainEqual(expect.objectContaining({ check: 'disk', verdict: 'fail', detail: 'fetches are paused: less than 1 GiB is free' }))
  })

  test('says of a mistake in the configuration once what it is', async () => {
    const file = join(await temporaryDirectory(), 'narvik.toml')
    await writeFile(file, 'listn = []')
    const { findings } = await examine({ NARVIK_CONFIG: file }, () => findSocket(undefined, { HOME: '/absent', NARVIK_CONFIG: file }))
    expect(findings.filter(({ detail }) => detail.includes('listn'))).toHaveLength(1)
    expect(findings).toContainEqual(expect.objectContaining({ check: 'daemon', verdict: 'warn', detail: expect.stringContaining('not asked') as string }))
  })

  test('sees a key that others may read, and a host that is open without one', async () => {
    const directory = await temporaryDirectory()
    const key = join(directory, 'fleet.key')
    await createFleetKey(key)
    await chmod(key, 0o644)
    expect((await examine({ NARVIK_FLEET_KEY_FILE: key })).verdicts['fleet key']).toEqual(['fail'])
    expect((await examine({ NARVIK_LISTEN: '/ip4/0.0.0.0/tcp/0' })).verdicts['fleet key']).toEqual(['fail'])
  })

  test('sees a key that the daemon will accept and that is not there', async () => {
    const key = join(await temporaryDirectory(), 'fleet.key')
    await createFleetKey(key)
    const { findings } = await examine({ NARVIK_FLEET_KEY_FILE: key, NARVIK_ACCEPT_FLEET_KEY_FILES: `${key}.next` })
    expect(findings).toContainEqual(expect.objectContaining({ check: 'fleet key', verdict: 'fail', detail: `${key}.next, which accept_fleet_key_files names, is not there` }))
  })

  // Only root gives files away.
  test.skipIf(process.getuid?.() !== 0)('sees a key that root has made, and that the daemon can not read', async () => {
    const dataDir = await temporaryDirectory()
    const key = join(await temporaryDirectory(), 'fleet.key')
    await createFleetKey(key)
    const env = { NARVIK_DATA_DIR: dataDir, NARVIK_FLEET_KEY_FILE: key }
    expect((await examine(env)).verdicts['fleet key']).toEqual(['ok'])
    await chown(dataDir, 12345, 12345)
    const { findings } = await examine(env)
    expect(findings).toContainEqual({ check: 'fleet key', verdict: 'fail', detail: `${key} belongs to another user than ${dataDir}: the daemon can not read it`, hint: `chown --reference=${dataDir} ${key}` })
    await chown(key, 12345, 12345)
    expect((await examine(env)).verdicts['fleet key']).toEqual(['ok'])
  })

  test('sees a quarantine and a host key that are open to others', async () => {
    const directory = await temporaryDirectory()
    await mkdir(join(directory, 'quarantine'), { mode: 0o755 })
    await writeFile(join(directory, 'identity.key'), 'x', { mode: 0o644 })
    expect((await examine({ NARVIK_DATA_DIR: directory })).verdicts.permissions).toEqual(['fail', 'fail'])
  })

  test('goes on when the configuration is no TOML', async () => {
    const file = join(await temporaryDirectory(), 'narvik.toml')
    await writeFile(file, 'mdns =')
    const { verdicts } = await examine({ NARVIK_CONFIG: file })
    expect(verdicts).toMatchObject({ config: ['fail'], disk: [expect.any(String)] })
  })
})
