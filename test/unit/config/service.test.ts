import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test, vi } from 'vitest'
import { defaultConfig } from '../../../src/config.ts'
import { installService } from '../../../src/cli/service.ts'
import { silentLogger } from '../../../src/log.ts'
import { notifySystemd, startHeartbeat } from '../../../src/notify.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const UNIT = 'config/narvikd.service'
const run = promisify(execFile)

describe('the unit', () => {
  const settings = new Map(readFileSync(UNIT, 'utf8').split('\n').filter(line => /^[A-Z]\w*=/.test(line)).map(line => {
    const [key = '', ...value] = line.split('=')
    return [key, value.join('=')] as const
  }))

  test('waits for the readiness that notifySystemd sends, from a child', () => {
    expect(settings.get('Type')).toBe('notify')
    expect(settings.get('NotifyAccess')).toBe('all')
    expect(settings.get('ExecStart')).toBe('/usr/bin/env narvik daemon')
  })

  test('makes the directories that the defaults are in', () => {
    const env = { STATE_DIRECTORY: `/var/lib/${settings.get('StateDirectory') ?? ''}`, RUNTIME_DIRECTORY: `/run/${settings.get('RuntimeDirectory') ?? ''}` }
    const service = defaultConfig({ env, uid: 990 })
    const root = defaultConfig({ env: {}, uid: 0 })
    expect([service.dataDir, service.socket]).toEqual([root.dataDir, root.socket])
    expect(settings.get('RuntimeDirectoryMode')).toBe('0750')
  })

  test('runs as the user that its sysusers file makes', async () => {
    expect(await readFile('config/narvik.sysusers.conf', 'utf8')).toContain(`\nu ${settings.get('User') ?? '?'} `)
  })

  test('passes systemd\'s own checks', async context => {
    const isHere = isOnPath('systemd-analyze')
    // A machine without systemd is told what it did not check; in CI that is a failure.
    if (!isHere && process.env.CI === undefined) context.skip('needs systemd-analyze, of Debian\'s package systemd')
    expect(isHere, 'systemd-analyze is on PATH').toBe(true)
    const { stderr } = await run('systemd-analyze', ['verify', UNIT])
    expect(stderr).toBe('')
    // The threshold is in tenths: an exposure of 2.0 of 10.
    await run('systemd-analyze', ['security', '--offline=true', '--threshold=20', UNIT])
  })
})

describe('the notification', () => {
  async function fakeNotify(script: string): Promise<{ env: NodeJS.ProcessEnv, log: string }> {
    const directory = await temporaryDirectory()
    const log = join(directory, 'log')
    await writeFile(join(directory, 'systemd-notify'), `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >> ${log}\n${script}\n`, { mode: 0o755 })
    return { env: { PATH: `${directory}${delimiter}${process.env.PATH ?? ''}`, NOTIFY_SOCKET: '/run/systemd/notify' }, log }
  }

  test('is sent by systemd-notify, to the socket of the service manager', async () => {
    const { env, log } = await fakeNotify('')
    await notifySystemd('ready', env)
    await notifySystemd('stopping', env)
    expect(await readFile(log, 'utf8')).toBe('/run/systemd/notify READY=1\n/run/systemd/notify STOPPING=1\n')
  })

  test('is not sent where nobody listens', async () => {
    const { env, log } = await fakeNotify('')
    await notifySystemd('ready', { ...env, NOTIFY_SOCKET: undefined })
    expect(existsSync(log)).toBe(false)
  })

  test('that fails, or can not be sent, is an error', async () => {
    const { env } = await fakeNotify('echo Connection refused >&2; exit 1')
    await expect(notifySystemd('ready', env)).rejects.toMatchObject({ code: 'io-error', message: 'Cannot tell systemd READY=1: found "Connection refused", needed systemd-notify to send it' })
    await expect(notifySystemd('ready', { ...env, PATH: await temporaryDirectory() })).rejects.toThrow(/READY=1: found .*ENOENT/)
  })
})

function isOnPath(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some(directory => existsSync(join(directory, program)))
}

describe('the heartbeat', () => {
  async function listening(): Promise<{ env: NodeJS.ProcessEnv, said: () => Promise<string> }> {
    const directory = await temporaryDirectory()
    const log = join(directory, 'log')
    await writeFile(join(directory, 'systemd-notify'), `#!/bin/sh\necho "$*" >> ${log}\n`, { mode: 0o755 })
    return { env: { PATH: `${directory}${delimiter}${process.env.PATH ?? ''}`, NOTIFY_SOCKET: '/run/systemd/notify', WATCHDOG_USEC: '60000' }, said: () => readFile(log, 'utf8').catch(() => '') }
  }

  test('says more often than the watchdog bites that all is well, and what goes on', async () => {
    const { env, said } = await listening()
    let checks = 0
    const stop = startHeartbeat({ check: () => { checks++ }, status: () => '2 peers', logger: silentLogger }, env)
    await vi.waitFor(async () => { expect((await said()).split('\n').filter(line => line === 'WATCHDOG=1 STATUS=2 peers').length).toBeGreaterThan(2) }, { timeout: 20_000 })
    stop()
    expect(checks).toBeGreaterThan(2)
  })

  test('says nothing while a check fails, so that the watchdog bites', async () => {
    const { env, said } = await listening()
    const told: string[] = []
    const logger = { ...silentLogger, error: (message: string) => { told.push(message) } }
    const stop = startHeartbeat({ check: () => { throw new Error('the catalog is gone') }, status: () => '', logger }, env)
    await vi.waitFor(() => { expect(told.length).toBeGreaterThan(2) }, { timeout: 20_000 })
    stop()
    expect(await said()).toBe('')
  })
})

test('narvik service install puts the unit and its user in place', async () => {
  const prefix = await temporaryDirectory()
  const outcome = await installService({ prefix })({ json: true, client: () => { throw new Error('needs no daemon') }, onProgress: () => undefined, stdin: process.stdin, stdoutIsTerminal: false })
  expect(outcome).toMatchObject({ json: { written: [join(prefix, 'etc/systemd/system/narvikd.service'), join(prefix, 'etc/sysusers.d/narvik.conf')] } })
  const unit = await readFile(join(prefix, 'etc/systemd/system/narvikd.service'), 'utf8')
  expect(unit).toContain(`\nExecStart=${join(process.cwd(), 'bin/narvik')} daemon\n`)
  expect(unit.replace(/^ExecStart=.*$/m, '')).toBe(readFileSync(UNIT, 'utf8').replace(/^ExecStart=.*$/m, ''))
})
