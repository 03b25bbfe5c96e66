import { describe, expect, test } from 'vitest'
import { startControl } from '../helpers/control.ts'
import { runStep } from '../helpers/session.ts'
import { temporaryDirectory } from '../helpers/temporary.ts'

/** What a command prints on a pseudo-terminal, where its output and its errors are one. */
async function onTerminal(command: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const { socket } = await startControl()
  const { stdout } = await runStep(`script -qec ${JSON.stringify(command)} /dev/null`, { cwd: await temporaryDirectory(), env: { TERM: 'xterm-256color', NARVIK_SOCKET: socket, ...env } })
  return stdout
}

const COLOUR = /\x1b\[[0-9;]+m/ // eslint-disable-line no-control-regex -- it is looked for
const BAR = /\r\x1b\[Kreceiving {3}\[#+-+\] {3}49 % {2}614\.4 MiB \/ 1\.2 GiB {2}100\.0 MiB\/s/ // eslint-disable-line no-control-regex -- it is looked for

describe('on a terminal', () => {
  test('states have colours, and NO_COLOR takes them away', async () => {
    expect(await onTerminal('narvik list')).toContain('\x1b[32mverified')
    expect(await onTerminal('narvik show nobody')).toContain('\x1b[31mnarvik:\x1b[39m Cannot find nobody')
    expect(await onTerminal('narvik list', { NO_COLOR: '1' })).not.toMatch(COLOUR)
    expect(await onTerminal('narvik show nobody', { NO_COLOR: '1' })).not.toMatch(COLOUR)
  })

  test('a document has none', async () => {
    expect(await onTerminal('narvik list --json')).not.toMatch(COLOUR)
  })

  test('long work draws a bar, and wipes it before the answer', async () => {
    const printed = await onTerminal('narvik fetch web-1', { NO_COLOR: '1' })
    expect(printed).toMatch(BAR)
    expect(printed.split('\r\x1b[K').at(-1)).toMatch(/^NAR hash/)
  })

  test.each([
    ['a document', 'narvik fetch web-1 --json', {}],
    ['a terminal that can not draw', 'narvik fetch web-1', { TERM: 'dumb' }],
    ['errors in a file', 'narvik fetch web-1 2> errors; cat errors', {}],
  ])('%s gets no bar', async (_, command, env) => {
    const printed = await onTerminal(command, env)
    expect(printed).toMatch(/sha256-/)
    expect(printed).not.toContain('receiving')
  })

  test('a NAR is not written to it', async () => {
    expect(await onTerminal('narvik dump .')).toContain('Cannot dump a NAR: found a terminal as standard output')
  })

  test('a NAR is not read from it', async () => {
    expect(await onTerminal('narvik restore copy')).toContain('Cannot restore a NAR: found a terminal as standard input')
  })
})

test('in a pipe there is neither colour nor bar', async () => {
  const { socket } = await startControl()
  const { stdout, stderr } = await runStep('narvik list; narvik fetch web-1', { cwd: await temporaryDirectory(), env: { TERM: 'xterm-256color', NARVIK_SOCKET: socket } })
  expect(stdout).not.toContain('\x1b')
  expect(stderr).toBe('')
})
