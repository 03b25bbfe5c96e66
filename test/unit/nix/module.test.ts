import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { parse as parseToml } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { CONFIG_KEYS } from '../../../src/config.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

interface Evaluated {
  readonly options: Record<string, string>
  readonly package: { readonly version: string }
  readonly config: {
    readonly assertions: readonly { readonly assertion: boolean }[]
    readonly environment: { readonly etc: Record<string, { readonly source: { readonly content: unknown } }> }
    readonly networking: { readonly firewall: { readonly allowedTCPPorts: readonly number[] | null } }
    readonly systemd: { readonly services: { readonly narvikd: { readonly serviceConfig: Record<string, string | string[] | null>, readonly environment: Record<string, string> } } }
  } | null
}

/** Evaluates the module with Nix itself, in a store that is thrown away. */
async function evaluate(values: string): Promise<Evaluated> {
  const directory = await temporaryDirectory()
  const { stdout } = await execa('nix-instantiate', ['--eval', '--strict', '--json', 'test/fixtures/nix/evaluate.nix', '--arg', 'values', values], {
    env: { NIX_STORE_DIR: join(directory, 'store'), NIX_STATE_DIR: join(directory, 'state'), NIX_LOG_DIR: join(directory, 'log'), HOME: directory },
  })
  return JSON.parse(stdout) as Evaluated
}

/** The settings of the unit, each with all its values. */
function unitSettings(): Map<string, string[]> {
  const text = readFileSync('config/narvikd.service', 'utf8').split('[Service]')[1]?.split('[Install]')[0] ?? ''
  const settings = new Map<string, string[]>()
  for (const [, key = '', value = ''] of text.matchAll(/^(\w+)=(.*)$/gm)) settings.set(key, [...settings.get(key) ?? [], value])
  return settings
}

/** `nix.bin_dir`: the names of all values in a document. */
function keysOf(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [path]
  return Object.entries(value).flatMap(([key, inner]) => keysOf(inner, path === '' ? key : `${path}.${key}`))
}

describe('the NixOS module', () => {
  test('runs the service as the unit does', async () => {
    const { config, package: { version } } = await evaluate('{ enable = true; fleetKeyFile = "/var/keys/fleet.key"; }')
    expect(version).toBe((JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }).version)
    const { serviceConfig, environment } = config?.systemd.services.narvikd ?? { serviceConfig: {}, environment: {} }
    // What NixOS does in its own way: it makes the directory of the configuration itself, and its programs have other places.
    const unit = unitSettings()
    for (const key of ['ConfigurationDirectory', 'ConfigurationDirectoryMode']) unit.delete(key)
    expect(`NODE_COMPILE_CACHE=${environment.NODE_COMPILE_CACHE ?? ''}`).toBe(unit.get('Environment')?.join())
    unit.delete('Environment')
    expect(Object.keys(serviceConfig).toSorted()).toEqual([...unit.keys()].toSorted())
    const differing = [...unit].filter(([key, value]) => JSON.stringify([serviceConfig[key] ?? []].flat()) !== JSON.stringify(value)).map(([key]) => key)
    expect(differing.toSorted()).toEqual(['ExecReload', 'ExecStart', 'LoadCredential'])
    expect(serviceConfig.ExecStart).toMatch(/\/bin\/narvik daemon$/)
    expect(serviceConfig.LoadCredential).toEqual(['narvik.fleet.key:/var/keys/fleet.key'])
  })

  test('writes the configuration, and opens the ports that are asked for', async () => {
    const { config } = await evaluate('{ enable = true; openFirewall = true; listen = [ "/ip4/0.0.0.0/tcp/4650" ]; settings = { metrics.port = 4651; }; }')
    expect(config?.environment.etc['narvik/narvik.toml']?.source.content).toEqual({ listen: ['/ip4/0.0.0.0/tcp/4650'], metrics: { port: 4651 } })
    expect(config?.networking.firewall.allowedTCPPorts).toEqual([4650])
    expect(config?.assertions.every(({ assertion }) => assertion)).toBe(true)
  })

  test('takes every key of the configuration, those of the whole example, and opens the ports that stand there', async () => {
    const example = parseToml(readFileSync('config/narvik.example.toml', 'utf8').replace(/^# (\w+ = .*)$/gm, '$1').replace('/tcp/0', '/tcp/4650'))
    const { config } = await evaluate(`{ enable = true; openFirewall = true; settings = builtins.fromJSON ${JSON.stringify(JSON.stringify(example)).replaceAll('${', '\\${')}; }`)
    const written = config?.environment.etc['narvik/narvik.toml']?.source.content
    expect(written).toEqual(example)
    expect(keysOf(written).toSorted()).toEqual(CONFIG_KEYS.toSorted())
    expect(config?.networking.firewall.allowedTCPPorts).toEqual([4650])
  })

  test('refuses a key that everybody could read, and does nothing unless it is enabled', async () => {
    const bad = await evaluate('{ enable = true; fleetKeyFile = "${builtins.storeDir}/key"; }')
    expect(bad.config?.assertions.every(({ assertion }) => assertion)).toBe(false)
    const { config, options } = await evaluate('{ }')
    expect(config).toBeNull()
    for (const [name, description] of Object.entries(options)) expect(description, name).not.toBe('')
  })
})
