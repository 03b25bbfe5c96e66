import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startControl } from '../helpers/control.ts'
import { parseSession, runStep, type Step } from '../helpers/session.ts'
import { temporaryDirectory } from '../helpers/temporary.ts'

/** Each session runs the real command line against the real control server; only what is behind the server is made up. */
const directory = import.meta.dirname

describe.each(readdirSync(directory).filter(name => name.endsWith('.txt')))('%s', name => {
  test('goes as it is written', async () => {
    const { socket } = await startControl()
    const cwd = await temporaryDirectory()
    const written = parseSession(readFileSync(join(directory, name), 'utf8'))
    expect(written.length).toBeGreaterThan(0)
    for (const step of written) {
      const { stdout, stderr, exit } = await runStep(step.command, { cwd, env: { NARVIK_SOCKET: socket } })
      const withoutPaths = (text: string): string => text.replaceAll(socket, '$SOCKET').replaceAll(cwd, '$DIR')
      expect({ command: step.command, stdout: withoutPaths(stdout), stderr: withoutPaths(stderr), exit } satisfies Step).toEqual(step)
    }
  })
})
