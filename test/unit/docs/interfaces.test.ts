import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import type { Command } from 'commander'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { createProgram } from '../../../src/cli/program.ts'
import * as api from '../../../src/control/api.ts'
import { PAGE_URL } from '../../../src/control/page.ts'
import { EVENTS_URL, METRICS_URL, ROUTES } from '../../../src/control/routes.ts'
import { ERROR_CODES } from '../../../src/errors.ts'
import { STATES } from '../../../src/image/states.ts'
import { HOT_KEYS } from '../../../src/reload.ts'
import { startControl } from '../../helpers/control.ts'

/** The text under each heading of a level, by heading. */
function sectionsOf(file: string, level: '##' | '###'): Map<string, string> {
  const text = readFileSync(file, 'utf8')
  const end = level === '##' ? /^## /m : /^#{2,3} /m
  return new Map(text.split(new RegExp(`^${level} `, 'm')).slice(1).map(section => {
    const [heading = '', ...lines] = section.split('\n')
    return [heading, lines.join('\n').split(end)[0] ?? '']
  }))
}

/** What stands in the first column of a section's table, without its backticks. */
function firstColumn(section: string | undefined): string[] {
  return [...(section ?? '').matchAll(/^\| `([^`]+)`/gm)].map(([, cell = '']) => cell)
}

function keysOf(schema: z.ZodType): string[] {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape)
  throw new TypeError('no object')
}

describe('docs/CONTROL-API.md', () => {
  const file = 'docs/CONTROL-API.md'
  const sections = sectionsOf(file, '###')

  test('has every route', () => {
    const written = [...sections.keys()].filter(heading => /^[A-Z]+ \//.test(heading))
    expect(written.toSorted()).toEqual([...ROUTES.map(({ method, url }) => `${method} ${url}`), `GET ${EVENTS_URL}`, `GET ${METRICS_URL}`, `GET ${PAGE_URL}`].toSorted())
  })

  const schemas: Readonly<Record<string, z.ZodType>> = {
    'POST /v1/import': api.importRequest,
    'POST /v1/fetch': api.fetchRequest,
    'POST /v1/publish': api.publishRequest,
    'published name': api.publishedNameSchema,
    'POST /v1/private': api.privateRequest,
    'POST /v1/verify': api.verifyRequest,
    'POST /v1/export': api.exportRequest,
    'POST /v1/install': api.installRequest,
    'POST /v1/pin': api.refRequest,
    'POST /v1/unpin': api.refRequest,
    'POST /v1/gc': api.gcRequest,
    'image': api.imageSchema,
    'POST /v1/queue': api.moveRequest,
    'POST /v1/cancel': api.refRequest,
    'queue': api.queueSchema.element,
    'usage': api.usageSchema,
    'collection': api.collectionSchema,
    'explanation': api.explanationSchema,
    'chunk map': api.chunkMapSchema,
    'journal entry': api.journalEntrySchema,
    'evidence': api.evidenceSchema,
    'stage': api.stageSchema,
    'verify report': api.verifyReportSchema,
    'verify result': api.verifyResultSchema,
    'status': api.statusSchema,
    'peer': api.peerSchema,
    'ban': api.banSchema,
    'progress': api.progressSchema,
    'transfer': api.transferSchema,
  }

  test.each(Object.entries(schemas))('%s has the fields of the code', (heading, schema) => {
    expect(firstColumn(sections.get(heading))).toEqual(keysOf(schema))
  })

  test('image details are an image and what is written there', () => {
    expect([...firstColumn(sections.get('image')), ...firstColumn(sections.get('image details'))]).toEqual(keysOf(api.imageDetailsSchema))
  })

  test('nothing is described that is not compared', () => {
    const described = [...sections].filter(([, section]) => firstColumn(section).length > 0).map(([heading]) => heading)
    expect(described.toSorted()).toEqual([...Object.keys(schemas), 'image details'].toSorted())
  })

  test.each([['image', 'state', STATES], ['progress', 'phase', api.PHASES], ['status', 'images', STATES]] as const)('%s: %s has the values of the code', (heading, field, values) => {
    const row = sections.get(heading)?.split('\n').find(line => line.startsWith(`| \`${field}\``)) ?? ''
    expect([...row.matchAll(/`([^`]+)`/g)].map(([, value]) => value)).toEqual([field, ...values])
  })

  const examples = [...readFileSync(file, 'utf8').matchAll(/^curl .*$/gm)].map(([line]) => line)

  test.each(examples)('%s', async line => {
    const { socket } = await startControl()
    const { method, path, headers, body } = readCurl(line)
    const status = await new Promise<number | undefined>((resolve, reject) => {
      request({ socketPath: socket, method, path, headers, agent: false }, response => {
        response.resume()
        resolve(response.statusCode)
        if (path === EVENTS_URL) response.destroy()
      }).once('error', reject).end(body)
    })
    expect(status).toBe(200)
  })
})

/** What curl makes of its arguments; the examples use no more than these. */
function readCurl(line: string): { method: string, path: string, headers: Record<string, string>, body: string | undefined } {
  const body = /--json '([^']*)'/.exec(line)?.[1]
  const accept = /-H 'accept: ([^']*)'/.exec(line)?.[1]
  return {
    method: /-X (\w+)/.exec(line)?.[1] ?? (body === undefined ? 'GET' : 'POST'),
    path: /http:\/\/narvik(\S+)/.exec(line)?.[1] ?? '',
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...(accept === undefined ? {} : { accept }) },
    body,
  }
}

test('docs/CONTROL-API.md has every kind of host event with its fields', () => {
  const section = sectionsOf('docs/CONTROL-API.md', '###').get('host event') ?? ''
  const written = new Map([...section.matchAll(/^\| (\w+) \| (.*) \|$/gm)].map(([, type = '', text = '']) => [type, new Set([...text.matchAll(/`(\w+)`/g)].map(([, field]) => field))]))
  for (const option of api.hostEventSchema.options) {
    const { type, at, ...fields } = option.shape
    expect(at).toBeDefined()
    for (const field of Object.keys(fields)) expect(written.get(type.value), `${type.value}: ${field}`).toContain(field)
  }
  expect([...written.keys()].filter(type => type !== 'type')).toEqual(api.hostEventSchema.options.map(({ shape }) => shape.type.value))
})

describe('docs/CLI.md', () => {
  const sections = sectionsOf('docs/CLI.md', '###')
  const chapters = sectionsOf('docs/CLI.md', '##')
  const unused = (): Promise<void> => Promise.resolve()
  const commands = leavesOf(createProgram('0', { run: unused, daemon: unused }))
  const common = firstColumn(chapters.get('For every command'))

  test('has every command with its arguments', () => {
    const inCode = commands.map(({ name, command }) => [name, ...command.registeredArguments.map(argument => argument.required ? argument.name() : `[${argument.name()}]`)].join(' '))
    expect([...sections.keys()].toSorted()).toEqual(inCode.toSorted())
  })

  test.each(commands.map(({ name, command }) => [name, command] as const))('%s has the options of the code', (name, command) => {
    const section = [...sections].find(([heading]) => heading === name || heading.startsWith(`${name} `))?.[1]
    expect([...firstColumn(section), ...common].toSorted()).toEqual([...command.options.map(({ flags }) => flags), '--help'].toSorted())
  })

  test('has every key of the configuration that a reload puts into force', () => {
    const written = /In force at once(.*?);/s.exec(sections.get('daemon') ?? '')?.[1] ?? ''
    expect([...written.matchAll(/`([^`]+)`/g)].map(([, key]) => key).toSorted()).toEqual([...HOT_KEYS].toSorted())
  })

  test('has every exit code, with the errors that lead to it', () => {
    const rows = [...(chapters.get('Exit codes') ?? '').matchAll(/^\| (\d) \| [^|]+ \| (.*)\|$/gm)]
    const written = rows.map(([, exit, codes = '']) => [Number(exit), [...codes.matchAll(/`([^`]+)`/g)].map(([, code]) => code)])
    const inCode = [0, 1, 2, 3, 4, 5, 6, 7].map(exit => [exit, Object.entries(ERROR_CODES).filter(([, error]) => error.exit === exit).map(([code]) => code)])
    expect(written).toEqual(inCode)
  })

  test.each(['Images', 'The node', 'The shell, without a daemon', 'The service, without a daemon', 'The configuration, without a daemon', 'The fleet\'s key, without a daemon', 'Trees and NARs, without a daemon'])('%s: every command says what its JSON is', chapter => {
    const text = readFileSync('docs/CLI.md', 'utf8').split(`\n## ${chapter}\n`)[1]?.split('\n## ')[0] ?? ''
    const named = text.split('\n### ').slice(1)
    expect(named.length).toBeGreaterThan(0)
    if (!/^\nJSON of (all|both)/.test(text)) for (const section of named) expect(section).toMatch(/JSON[:,]/)
  })
})

/** The commands that do something, by their whole name: those that only hold others are left out. */
function leavesOf(parent: Command, prefix = ''): { readonly name: string, readonly command: Command }[] {
  return parent.commands.flatMap(command => {
    const name = `${prefix}${command.name()}`
    return command.commands.length === 0 ? [{ name, command }] : leavesOf(command, `${name} `)
  })
}
