import { connect } from 'node:net'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import type { Tasks } from '../../src/control/api.ts'
import { ControlClient } from '../../src/control/client.ts'
import { createControlServer, type ControlServer, type ControlServerInit } from '../../src/control/server.ts'
import { PageFiles } from '../../src/page/files.ts'
import { fakeTasks } from './fake-tasks.ts'
import { temporaryDirectory } from './temporary.ts'

/** A control server with its client; both are gone when the test is. */
export async function startControl(overrides: Partial<Tasks> = {}, init: Partial<ControlServerInit> = {}): Promise<{ socket: string, server: ControlServer, client: ControlClient }> {
  const socket = init.socket ?? join(await temporaryDirectory(), 'narvik.sock')
  const server = createControlServer({ tasks: fakeTasks(overrides), page: new PageFiles(), logger: silentLogger }, { ...init, socket })
  await server.start()
  onTestFinished(() => server.stop())
  return { socket, server, client: new ControlClient({ socket }) }
}

/** Sends bytes as they are, and collects what comes back until the other end closes. */
export function talkRaw(socket: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const connection = connect(socket, () => { connection.write(text) })
    connection.setEncoding('utf8')
    connection.on('data', (part: string) => { answer += part })
    connection.on('close', () => { resolve(answer) })
    connection.on('error', error => { if (answer === '') reject(error) })
  })
}
