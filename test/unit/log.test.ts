import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const run = promisify(execFile)
const LOG = new URL('../../src/log.ts', import.meta.url).href

/** What a logger of a process of its own writes for some fields. */
async function logged(fields: string, format: 'json' | 'text'): Promise<string> {
  const script = `import { createLogger } from ${JSON.stringify(LOG)}; import { createSecretKey } from 'node:crypto'
    createLogger({ level: 'debug', format: '${format}' }).info('a line', ${fields})`
  const { stderr } = await run(process.execPath, ['--input-type=module', '-e', script])
  return stderr
}

describe.each(['json', 'text'] as const)('a line of %s', format => {
  // Guard: withoutSecrets. Nothing logs a key; this is for the day on which something does.
  test('never has a key, whatever it is given', async () => {
    const bytes = 'Buffer.from("topsecret-topsecret-topsecret!!!")'
    const line = await logged(`{ fleetKey: ${bytes}.toString(), any: ${bytes}, deep: { secretKey: 'topsecret', list: [{ privateKey: 'topsecret' }, ${bytes}] }, object: createSecretKey(${bytes}) }`, format)
    expect(line).toContain('a line')
    expect(line).toContain('32 bytes')
    expect(line).not.toContain('topsecret')
    expect(line).not.toContain(Buffer.from('topsecret').toString('hex'))
    expect(line).not.toContain('116')
  })

  // Guards: a key object is one, though its enumerable properties show nothing of it today; and nothing is looked for without an end.
  test('has no key object, and no more levels than people read', async () => {
    const line = await logged('{ object: createSecretKey(Buffer.alloc(32, 7)), deep: { a: { b: { c: { d: { e: { f: { g: "too deep" } } } } } } } }', format)
    expect(line).toContain('[a key]')
    expect(line).toMatch(format === 'json' ? /\[more\]/ : /\[Object\]/)
    expect(line).not.toContain('too deep')
  })

  test('has everything else as it is', async () => {
    const line = await logged('{ peerId: "12D3", keys: ["mdns"], at: new Date(0), nested: { a: [1] }, error: new TypeError("no") }', format)
    for (const text of ['12D3', 'mdns', '1970-01-01', 'no', 'TypeError']) expect(line).toContain(text)
  })
})
