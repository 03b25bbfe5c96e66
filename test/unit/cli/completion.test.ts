import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { completion } from '../../../src/cli/completion.ts'
import { EXAMPLES } from '../../../src/cli/examples.ts'
import { createProgram } from '../../../src/cli/program.ts'
import { startControl } from '../../helpers/control.ts'
import { BAD_HASH, goodImage, GOOD_HASH } from '../../helpers/fake-tasks.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const unused = (): Promise<void> => Promise.resolve()
const program = createProgram('0', { run: unused, daemon: unused })

async function scriptFor(shell: string): Promise<string> {
  const outcome = await completion(shell, undefined, program)({ json: true, client: () => { throw new Error('needs no daemon') }, onProgress: () => undefined, stdin: process.stdin, stdoutIsTerminal: false })
  return (outcome as { json: { script: string } }).json.script
}

const run = promisify(execFile)
const NARVIK = join(import.meta.dirname, '../../../bin/narvik')

/** What bash offers in place of the last word. */
async function complete(...words: string[]): Promise<string[]> {
  const file = join(await temporaryDirectory(), 'narvik.bash')
  await writeFile(file, await scriptFor('bash'))
  const script = `source ${file}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _narvik; printf '%s\\n' "\${COMPREPLY[@]}"`
  const { stdout, stderr } = await run('bash', ['-c', script, 'bash', NARVIK, ...words])
  expect(stderr).toBe('')
  return stdout.trim().split('\n')
}

test('bash completes commands, commands within commands and options', async () => {
  expect(await complete('trans')).toEqual(['transfers'])
  expect(await complete('fleet', '')).toEqual(expect.arrayContaining(['create', 'show']))
  expect(await complete('fetch', 'web-1', '--time')).toEqual(['--timeout'])
  expect(await complete('config', 'check', '--js')).toEqual(['--json'])
  expect(await complete('--js')).toEqual(['--json'])
  expect(await complete('--json', '--socket', '/run/a.sock', 'trans')).toEqual(['transfers'])
  expect(await complete('--json', 'fleet', '--json', 'cr')).toEqual(['create'])
  expect(await complete('nothing-like-it')).toEqual([''])
})

test('bash completes references where one is due, as the daemon knows them', async () => {
  const { socket } = await startControl()
  const here = (...words: string[]): Promise<string[]> => complete(words[0] ?? '', '--socket', socket, ...words.slice(1))
  // By name where there is one; by hash only where that is begun.
  expect(await here('show', '')).toEqual(['web-1', BAD_HASH, 'web'])
  expect(await here('fetch', 'we')).toEqual(['web-1', 'web'])
  expect(await here('fetch', '--name', 'copy', GOOD_HASH.slice(0, 12))).toEqual([GOOD_HASH])
  expect(await here('queue', 'move', 'w')).toEqual(['web-1', 'web'])
  expect(await complete('--socket', socket, 'show', 'we')).toEqual(['web-1', 'web'])
  expect(await complete('queue', 'move', '--socket', socket, 'w')).toEqual(['web-1', 'web'])
  // Not for what is no REF, and not for what follows an option.
  expect(await here('export', 'web-1', '')).not.toContain('web-1')
  expect(await here('fetch', '--name', '')).toEqual([''])
})

test('without a daemon, or with one that does not answer, there are no references, soon and silently', async () => {
  expect(await complete('show', '--socket', '/nowhere/narvik.sock', 'w')).toEqual([''])
  const { socket } = await startControl({ list: () => new Promise(() => undefined) })
  expect(await complete('show', '--socket', socket, 'w')).toEqual([''])
})

test('the references say what each is, and published names of trusted keys are among them', async () => {
  const { socket } = await startControl({ names: () => [{ name: 'web-2', publisher: 'fleet-1:key', narHash: GOOD_HASH, seq: 1, publishedAt: goodImage.createdAt, expiresAt: goodImage.createdAt, trusted: true, own: false }, { name: 'evil', publisher: 'x:key', narHash: GOOD_HASH, seq: 1, publishedAt: goodImage.createdAt, expiresAt: goodImage.createdAt, trusted: false, own: false }] })
  const { stdout } = await run(NARVIK, ['completion', 'refs', '--socket', socket])
  expect(stdout).toBe(`web-1\tverified, 1.2 GiB\n${BAD_HASH}\trejected\nweb-2\tpublished\n`)
})

test('every command is in every shell\'s script', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const script = await scriptFor(shell)
    for (const command of program.commands) expect(script, `${shell}: ${command.name()}`).toContain(command.name())
  }
  expect(() => completion('tcsh', undefined, program)).toThrow(/found "tcsh", needed bash, zsh, fish/)
})

test('every example is a command line that is understood', async () => {
  for (const example of Object.values(EXAMPLES).flat()) {
    const [, line = ''] = /narvik ([^|<>]*)/.exec(example) ?? []
    const fresh = createProgram('0', { run: unused, daemon: unused })
    await fresh.parseAsync(line.trim().split(' '), { from: 'user' })
  }
  expect(Object.keys(EXAMPLES).length).toBeGreaterThan(10)
})
