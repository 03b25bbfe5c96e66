import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { describe, expect, test } from 'vitest'
import { importsOf } from './helpers/imports.ts'

const SRC = new URL('../src/', import.meta.url).pathname

/** What one part of the source may import. `*` at the end of a package stands for any rest. */
interface Rule {
  /** Files of the part, below src/; a directory ends in `/`. The most exact entry of all rules says whose a file is. */
  readonly files: readonly string[]
  readonly own: readonly string[]
  readonly outside: readonly string[]
  /** Parts that may be loaded when they are needed, and not before. */
  readonly lazy?: readonly string[]
}

/** The table of docs/ARCHITECTURE.md. What is not here is not allowed. */
const RULES = {
  errors: { files: ['errors.ts'], own: [], outside: [] },
  'byte size': { files: ['byte-size.ts'], own: [], outside: [] },
  limits: { files: ['limits.ts'], own: [], outside: [] },
  log: { files: ['log.ts'], own: ['errors', 'limits'], outside: ['node:*', 'pino'] },
  mismatch: { files: ['mismatch.ts'], own: [], outside: ['zod'] },
  config: { files: ['config.ts', 'config/'], own: ['errors', 'limits', 'log', 'mismatch', 'byte size'], outside: ['node:*', 'smol-toml', 'zod'] },
  'key files': { files: ['secret-file.ts', 'fleet-key.ts'], own: ['errors'], outside: ['node:*'] },
  notify: { files: ['notify.ts'], own: ['errors', 'limits', 'log'], outside: ['node:*'] },

  image: { files: ['image/'], own: ['errors', 'limits'], outside: ['zod', '@napi-rs/blake-hash'] },
  nar: {
    files: ['nar/'],
    own: ['errors', 'limits', 'image'],
    outside: ['node:crypto', 'node:fs', 'node:fs/promises', 'node:os', 'node:path', 'node:timers/promises', 'node:worker_threads'],
  },
  'nix formats': { files: ['nix/'], own: ['errors', 'limits', 'image'], outside: ['node:crypto'] },
  'nix command': {
    files: ['nix/command.ts', 'nix/daemon-socket.ts', 'nix/execute.ts', 'nix/gc-root.ts', 'nix/nix-error.ts', 'nix/program-stamp.ts', 'nix/roots.ts', 'nix/slots.ts', 'nix/store-location.ts', 'nix/store-stamp.ts', 'nix/store-writer.ts', 'nix/version.ts'],
    own: ['errors', 'limits', 'log', 'image', 'nix formats'],
    outside: ['node:*', 'execa'],
  },
  store: {
    files: ['store/'],
    own: ['errors', 'limits', 'log', 'image', 'nar'],
    outside: ['node:crypto', 'node:fs', 'node:fs/promises', 'node:path', 'node:url', 'better-sqlite3'],
  },
  verify: { files: ['verify/'], own: ['errors', 'limits', 'image', 'nar', 'nix formats'], outside: ['node:*'] },
  p2p: {
    files: ['p2p/'],
    own: ['errors', 'limits', 'log', 'image', 'key files'],
    outside: ['node:*', 'libp2p', '@libp2p/*', '@chainsafe/libp2p-*', '@multiformats/*', 'multiformats/*', 'it-pipe', 'zod'],
  },
  tasks: {
    files: ['tasks/'],
    own: ['errors', 'limits', 'byte size', 'log', 'config', 'image', 'nar', 'nix formats', 'nix command', 'store', 'verify', 'p2p', 'control api'],
    outside: ['node:*', 'it-pipe', 'zod'],
  },

  metrics: { files: ['metrics/'], own: ['control api', 'tasks', 'p2p', 'image', 'errors', 'limits', 'log'], outside: ['node:*'] },

  page: { files: ['page/'], own: [], outside: ['node:*'] },
  'page in the browser': { files: ['page/browser/'], own: [], outside: ['lit-html', 'lit-html/*'] },

  trace: { files: ['trace/'], own: ['control api', 'tasks', 'p2p', 'image', 'errors', 'limits', 'log'], outside: ['node:*', '@opentelemetry/*'] },

  'control api': { files: ['control/api.ts', 'control/fields.ts', 'control/requests.ts', 'control/space-answers.ts'], own: ['errors', 'limits', 'image'], outside: ['zod'] },
  'control server': { files: ['control/'], own: ['control api', 'tasks', 'page', 'errors', 'limits', 'log', 'mismatch'], outside: ['node:*', 'fastify', 'zod'] },
  'control client': { files: ['control/client.ts'], own: ['control api', 'errors', 'limits', 'mismatch'], outside: ['node:*', 'zod'] },
  cli: {
    files: ['cli.ts', 'cli/'],
    own: ['control api', 'control client', 'nar', 'image', 'nix formats', 'key files', 'config', 'byte size', 'errors', 'limits', 'log'],
    outside: ['node:*', 'commander'],
    lazy: ['daemon'],
  },
  daemon: { files: ['daemon.ts', 'reload.ts', 'settings.ts', 'signals.ts'], own: ['*'], outside: ['*'] },
} as const satisfies Record<string, Rule>

type Part = keyof typeof RULES

/** Packages that one part alone may import, whatever the rest of the table says. */
const EXCLUSIVE = { 'better-sqlite3': 'store', 'libp2p': 'p2p', 'execa': 'nix command' } as const

describe('the import rule', () => {
  const files = sourceFiles()

  test('is kept by every file', () => {
    expect(files.flatMap(file => violations(file, readFileSync(join(SRC, file), 'utf8')))).toEqual([])
  })

  test('covers every file', () => {
    expect(files.filter(file => partOf(file) === undefined)).toEqual([])
    expect(files).toContain('store/catalog.ts')
  })

  test('keeps store, p2p, verify and nix apart, and their packages with them', () => {
    const apart = { store: ['store'], p2p: ['p2p'], verify: ['verify'], nix: ['nix formats', 'nix command'] } as const
    for (const [folder, parts] of Object.entries(apart)) {
      const others = Object.entries(apart).filter(([other]) => other !== folder).flatMap(([, names]) => names)
      // Verify knows Nix's formats, which are pure; not the command.
      const allowed = folder === 'verify' ? ['nix formats'] : []
      for (const part of parts) expect((RULES[part].own as readonly string[]).filter(own => others.includes(own as never)), part).toEqual(allowed)
    }
    for (const [name, part] of Object.entries(EXCLUSIVE)) {
      expect(Object.keys(RULES).filter(other => other !== 'daemon' && mayTakeOutside(other as Part, name))).toEqual([part])
    }
  })

  test('has OpenTelemetry loaded by nothing but what traces, and only when it does', () => {
    for (const file of files) {
      const text = readFileSync(join(SRC, file), 'utf8')
      const loaded = importsOf(file, text.replaceAll(/^import type .*$/gm, '')).filter(({ specifier }) => specifier?.startsWith('@opentelemetry/') === true)
      expect(loaded.filter(({ lazy }) => !lazy || partOf(file) !== 'trace'), file).toEqual([])
    }
  })

  test('has no circle among the parts', () => {
    const open = new Map<string, readonly string[]>(Object.entries(RULES).map(([part, { own }]) => [part, own]))
    for (let size = -1; size !== open.size;) {
      size = open.size
      for (const [part, own] of open) if (!own.some(other => open.has(other))) open.delete(part)
    }
    expect([...open.keys()]).toEqual([])
  })
})

describe('an arrow that the table does not have is reported', () => {
  const forbidden: readonly [file: string, text: string, reported: string][] = [
    ['store/a.ts', 'import { a } from \'../p2p/node.ts\'', 'store/a.ts:1: store imports p2p (p2p/node.ts)'],
    ['p2p/a.ts', '\nimport type { A } from \'../store/catalog.ts\'', 'p2p/a.ts:2: p2p imports store (store/catalog.ts)'],
    ['p2p/nar/a.ts', 'export * from \'../../tasks/fetch-image.ts\'', 'p2p/nar/a.ts:1: p2p imports tasks (tasks/fetch-image.ts)'],
    ['verify/a.ts', 'type A = import(\'../nix/command.ts\').NixCommand', 'verify/a.ts:1: verify imports nix command (nix/command.ts)'],
    ['nix/narinfo.ts', 'await import(\'./command.ts\')', 'nix/narinfo.ts:1: nix formats imports nix command (nix/command.ts)'],
    ['image/a.ts', 'import { readFile } from \'node:fs/promises\'', 'image/a.ts:1: image imports node:fs/promises'],
    ['image/a.ts', 'import \'fs\'', 'image/a.ts:1: image imports fs'],
    ['tasks/a.ts', 'import Database from \'better-sqlite3\'', 'tasks/a.ts:1: tasks imports better-sqlite3'],
    ['tasks/a.ts', 'import { createNode } from \'../daemon.ts\'', 'tasks/a.ts:1: tasks imports daemon (daemon.ts)'],
    ['daemon.ts', 'import { execa } from \'execa\'', 'daemon.ts:1: daemon imports execa, which is for nix command alone'],
    ['nar/a.ts', 'new Worker(new URL(\'../store/worker.ts\', import.meta.url))', 'nar/a.ts:1: nar imports store (store/worker.ts)'],
    ['nar/a.ts', 'const a = require(\'execa\')', 'nar/a.ts:1: nar imports execa'],
    ['nar/a.ts', 'import a = require(\'execa\')', 'nar/a.ts:1: nar imports execa'],
    ['nar/a.ts', 'import(where)', 'nar/a.ts:1: nar imports something that is computed'],
    ['nar/a.ts', 'import \'../../test/helpers/imports.ts\'', 'nar/a.ts:1: nar imports ../test/helpers/imports.ts, which is no part'],
    ['cli.ts', 'import { runDaemon } from \'./daemon.ts\'', 'cli.ts:1: cli imports daemon (daemon.ts)'],
    ['other/a.ts', '', 'other/a.ts: belongs to no part'],
  ]
  test.each(forbidden)('%s: %s', (file, text, reported) => {
    expect(violations(file, text)).toEqual([reported])
  })

  test('and one that it has is not', () => {
    expect(violations('cli.ts', 'await import(\'./daemon.ts\'); import \'./cli/table.ts\'; import \'commander\'')).toEqual([])
    expect(violations('store/a.ts', 'import \'./b.ts\'; import \'better-sqlite3\'; new URL(\'./migrations/\', import.meta.url)')).toEqual([])
    expect(violations('p2p/a.ts', 'import \'@libp2p/crypto/keys\'; import \'multiformats/cid\'')).toEqual([])
    expect(violations('daemon.ts', 'import \'./store/catalog.ts\'; import \'node:path\'')).toEqual([])
  })
})

function sourceFiles(): string[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter(file => /\.[cm]?[jt]sx?$/.test(file))
}

/** A sentence for each import of the file that the table doesn't have. */
function violations(file: string, text: string): string[] {
  const part = partOf(file)
  if (part === undefined) return [`${file}: belongs to no part`]
  return importsOf(file, text).flatMap(({ specifier, lazy, line }) => {
    const fault = specifier === null ? 'something that is computed' : faultOf(part, file, specifier, lazy)
    return fault === undefined ? [] : [`${file}:${line}: ${part} imports ${fault}`]
  })
}

function faultOf(part: Part, file: string, specifier: string, lazy: boolean): string | undefined {
  if (!specifier.startsWith('.')) {
    const owner = Object.entries(EXCLUSIVE).find(([name]) => name === specifier)?.[1]
    if (!mayTakeOutside(part, specifier)) return specifier
    return owner === undefined || owner === part ? undefined : `${specifier}, which is for ${owner} alone`
  }
  const target = posix.normalize(posix.join(posix.dirname(file), specifier))
  const other = partOf(target)
  if (other === undefined) return `${target}, which is no part`
  const rule: Rule = RULES[part]
  const allowed = [part, ...rule.own, ...(lazy ? rule.lazy ?? [] : [])]
  return allowed.includes(other) || allowed.includes('*') ? undefined : `${other} (${target})`
}

function mayTakeOutside(part: Part, specifier: string): boolean {
  return RULES[part].outside.some(name => (name.endsWith('*') ? specifier.startsWith(name.slice(0, -1)) : specifier === name))
}

function partOf(file: string): Part | undefined {
  let found: { part: Part, length: number } | undefined
  for (const part of Object.keys(RULES) as Part[]) {
    for (const entry of RULES[part].files) {
      const match = entry.endsWith('/') ? file.startsWith(entry) : file === entry
      if (match && entry.length > (found?.length ?? 0)) found = { part, length: entry.length }
    }
  }
  return found?.part
}
