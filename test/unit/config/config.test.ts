import { readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { renderConfigPage, renderExample } from '../../../scripts/config-docs.ts'
import { checkConfig, CONFIG_KEYS, defaultConfig, describeConfig, environmentName, loadConfig, type Config } from '../../../src/config.ts'
import { isNarvikError } from '../../../src/errors.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const EXAMPLE = 'config/narvik.example.toml'
const USER = { env: { HOME: '/home/u' }, uid: 1000 }

async function load(toml: string, sources: Partial<Parameters<typeof loadConfig>[0]> = {}): Promise<Config> {
  const file = join(await temporaryDirectory(), 'narvik.toml')
  await writeFile(file, toml)
  return loadConfig({ ...USER, file, ...sources })
}

describe('the documents of the configuration', () => {
  test('are those that the code makes', () => {
    for (const [file, text] of [[EXAMPLE, renderExample()], ['docs/CONFIG.md', renderConfigPage()]] as const) {
      expect(readFileSync(file, 'utf8'), `${file}: run node scripts/docs.ts`).toBe(text)
    }
  })

  test('the example has nothing but the defaults of the service', () => {
    expect(loadConfig({ file: EXAMPLE, env: {}, uid: 0 })).toEqual(defaultConfig({ env: {}, uid: 0 }))
  })

  test('the example is read whole when its comments are taken off the keys', async () => {
    const text = readFileSync(EXAMPLE, 'utf8').replace(/^# ([a-z_]+ = )/gm, '$1')
    expect(await load(text)).toMatchObject({ fleetKeyFile: '/etc/narvik/fleet.key', nix: { binDir: '/run/current-system/sw/bin' } })
    for (const { key } of describeConfig('keys')) expect(text).toMatch(new RegExp(`^${key.split('.').at(-1) ?? ''} = `, 'm'))
  })

  test('every key and every table has sentences, and what is null by default an example that fits', () => {
    for (const { key, description } of [...describeConfig('keys'), ...describeConfig('tables')]) expect(description, key).toMatch(/^[A-Z0-9a-z].*\.$/)
    const unset = describeConfig('keys').filter(({ schema }) => schema.safeParse(null).success)
    expect(unset.length).toBeGreaterThan(0)
    for (const { key, schema, example } of unset) expect(example === undefined || !schema.safeParse(example).success, key).toBe(false)
  })
})

describe('where values come from', () => {
  test('flags over variables over the file over the defaults', async () => {
    const toml = 'data_dir = "/file"\nsocket = "/file/s"\nmdns = false\n[log]\nlevel = "warn"'
    const env = { HOME: '/home/u', NARVIK_DATA_DIR: '/variable', NARVIK_SOCKET: '/variable/s', NARVIK_LOG_FORMAT: 'json' }
    const config = await load(toml, { env, flags: { dataDir: '/flag' } })
    expect(config).toMatchObject({ dataDir: '/flag', socket: '/variable/s', mdns: false, log: { level: 'warn', format: 'json' }, allowOpen: false })
  })

  test('variables of every type', () => {
    const env = {
      HOME: '/home/u',
      NARVIK_LISTEN: '/ip4/127.0.0.1/tcp/1, /ip6/::1/tcp/2',
      NARVIK_MDNS: 'false',
      NARVIK_NIX_STORE_ADD_MAX_BYTES: '0',
      NARVIK_FETCH_STALL_SECONDS: '0.5',
      NARVIK_FLEET_KEY_FILE: '',
    }
    expect(loadConfig({ env, uid: 1000 })).toMatchObject({
      listen: ['/ip4/127.0.0.1/tcp/1', '/ip6/::1/tcp/2'], mdns: false, nix: { storeAddMaxBytes: 0 }, fetch: { stallSeconds: 0.5 }, fleetKeyFile: null,
    })
  })

  test('a relative flag is relative to the working directory', () => {
    expect(loadConfig({ ...USER, flags: { dataDir: 'data', socket: 's' } })).toMatchObject({ dataDir: join(process.cwd(), 'data'), socket: join(process.cwd(), 's') })
  })

  test('the file in its usual place is read where it is there', async () => {
    const home = await temporaryDirectory()
    expect(loadConfig({ env: { XDG_CONFIG_HOME: home, HOME: home }, uid: 1000 }).mdns).toBe(true)
    await mkdir(join(home, 'narvik'))
    await writeFile(join(home, 'narvik/narvik.toml'), 'mdns = false')
    expect(loadConfig({ env: { XDG_CONFIG_HOME: home, HOME: home }, uid: 1000 }).mdns).toBe(false)
  })

  test.each([
    ['root', 0, {}, '/var/lib/narvik', '/run/narvik/narvik.sock'],
    ['systemd', 990, { STATE_DIRECTORY: '/var/lib/narvik', RUNTIME_DIRECTORY: '/run/narvik' }, '/var/lib/narvik', '/run/narvik/narvik.sock'],
    ['a user', 1000, { HOME: '/home/u' }, '/home/u/.local/share/narvik', '/home/u/.local/share/narvik/narvik.sock'],
    ['a user with XDG', 1000, { HOME: '/home/u', XDG_DATA_HOME: '/d', XDG_RUNTIME_DIR: '/run/user/1000' }, '/d/narvik', '/run/user/1000/narvik.sock'],
    ['a user with a data directory', 1000, { HOME: '/home/u', NARVIK_DATA_DIR: '/d' }, '/d', '/d/narvik.sock'],
  ])('the places of %s', (_, uid, env, dataDir, socket) => {
    expect(loadConfig({ env, uid })).toMatchObject({ dataDir, socket })
  })
})

describe('what is wrong is named', () => {
  test.each([
    ['a misspelt key', 'data_dri = "/x"', /the key data_dri \(.*narvik.toml, line 1\): .* data_dir$/],
    ['a misspelt key in a table', 'mdns = true\n\n[log]\n# a comment\nlevle = "info"', /the key log.levle \(.*, line 5\): .* log.level$/],
    ['a key in the wrong table', '[log]\nmdns = true', /the key log.mdns \(.*, line 2\): .* mdns$/],
    ['a key of ours in camel case', 'dataDir = "/x"', /the key dataDir .* data_dir$/],
    ['a table where a value should be', '[mdns]\na = 1', /mdns \(.*line 1\): found \{"a":1\}, needed boolean/],
    ['a value where a table should be', 'log = "info"', /the key log \(.*line 1\).* log.level$/],
    ['another type', 'mdns = "yes"', /mdns \(.*line 1\): found "yes", needed boolean/],
    ['a value that is not allowed', 'log.level = "loud"', /log.level \(.*line 1\): found "loud", needed one of/],
    ['a relative path', 'data_dir = "data"', /found "data", needed an absolute path/],
    ['a bad address', 'listen = ["localhost:4650"]', /listen .*found "localhost:4650", needed a multiaddr/],
    ['an address with a bad host', 'listen = ["/ip4/1.2.3.4.5/tcp/1"]', /needed a multiaddr/],
    ['an address with a bad port', 'listen = ["/ip4/1.2.3.4/tcp/65536"]', /needed a multiaddr/],
    ['a peer without its id', 'bootstrap = ["/ip4/10.0.0.1/tcp/4650"]', /needed a multiaddr with a peer id/],
    ['no number of seconds', 'fetch.stall_seconds = 0', /found 0, needed number to be >0/],
    ['no TOML', 'mdns = \n', /found ".*" in line 1, column \d+, needed TOML/],
    ['a key twice', 'mdns = true\nmdns = true', /line 2/],
    ['a prototype', '__proto__ = { mdns = false }', /the key __proto__/],
  ])('%s', async (_, toml, message) => {
    const failure = load(toml)
    await expect(failure).rejects.toMatchObject({ code: 'invalid-config' })
    await expect(failure).rejects.toThrow(message)
  })

  test('an unknown variable', () => {
    expect(() => loadConfig({ ...USER, env: { NARVIK_DATADIR: '/x' } })).toThrow(/NARVIK_DATADIR \(the environment\).* NARVIK_DATA_DIR$/)
  })

  test('a variable of another type', () => {
    expect(() => loadConfig({ ...USER, env: { HOME: '/home/u', NARVIK_MDNS: 'maybe' } })).toThrow('Cannot use mdns (NARVIK_MDNS): found "maybe", needed boolean')
  })

  test('a file that was named and is not there', () => {
    for (const sources of [{ file: '/absent/narvik.toml', env: {} }, { env: { NARVIK_CONFIG: '/absent/narvik.toml' } }]) {
      expect(() => loadConfig(sources)).toThrow(expect.objectContaining({ code: 'not-found' }))
    }
  })

  test('a file over its limit', async () => {
    await expect(load('#'.repeat(1024 ** 2 + 1))).rejects.toThrow(/found 1048577 bytes/)
  })

  test('whatever is in the file, the error is one of ours', async () => {
    await fc.assert(fc.asyncProperty(fc.oneof(fc.string({ unit: 'grapheme' }), fc.tuple(fc.constantFrom(...CONFIG_KEYS), fc.json()).map(([key, value]) => `${key} = ${value}`)), async toml => {
      try {
        await load(toml)
      } catch (error) {
        if (!isNarvikError(error, 'invalid-config')) throw error
      }
    }))
  })
})

describe('a check', () => {
  test('tells everything that is wrong, each with its line', async () => {
    const file = join(await temporaryDirectory(), 'narvik.toml')
    await writeFile(file, 'mdns = "yes"\n[log]\nlevle = "info"\nformat = "json"\n')
    const { problems, settings, config } = checkConfig({ ...USER, file, env: { HOME: '/home/u', NARVIK_MDSN: '1' } })
    expect(problems.map(({ message }) => message)).toEqual([
      `Cannot use mdns (${file}, line 1): found "yes", needed boolean`,
      `Cannot use the key log.levle (${file}, line 3): found no such key, needed one such as log.level`,
      'Cannot use the key NARVIK_MDSN (the environment): found no such key, needed one such as NARVIK_MDNS',
    ])
    expect(config).toMatchObject({ mdns: true, log: { format: 'json' } })
    expect(settings.find(({ key }) => key === 'log.format')).toEqual({ key: 'log.format', value: 'json', place: `${file}, line 4` })
    expect(settings.map(({ key }) => key)).toEqual(CONFIG_KEYS)
  })

  test('of an inline table names its line', async () => {
    await expect(load('mdns = true\nlog = { level = "loud" }')).rejects.toThrow(/log.level \(.*, line 2\)/)
  })
})

test('each key has a variable of its own', () => {
  expect(new Set(CONFIG_KEYS.map(environmentName)).size).toBe(CONFIG_KEYS.length)
})
