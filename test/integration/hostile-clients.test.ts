/** Clients of the control socket that mean harm, against a real daemon: what they cost it. What each is answered is in test/unit/control/server.test.ts. */
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import { afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { CONTROL_REQUEST_TIMEOUT_MS, MAX_CONTROL_CONNECTIONS } from '../../src/limits.ts'
import { TestDaemon } from '../helpers/fleet.ts'
import { openFiles } from '../helpers/hostile.ts'

const CLIENTS = 10_000
const AT_ONCE = 500
let host: TestDaemon

beforeAll(async () => { host = await TestDaemon.start({ env: { NARVIK_LOG_LEVEL: 'info' } }) })

// Whatever was done to it, the daemon has not been made to fill its log.
afterEach(() => { expect(host.log.split('\n').length).toBeLessThan(20) })

/** A client, once it is in or was turned away. */
async function knock(): Promise<{ readonly socket: Socket, readonly ended: Promise<void> }> {
  const socket = connect(host.socket)
  onTestFinished(() => { socket.destroy() })
  const ended = new Promise<void>(resolve => { socket.on('error', () => undefined).on('close', () => { resolve() }) })
  await Promise.race([ended, new Promise(resolve => { socket.once('connect', resolve) })])
  socket.resume()
  return { socket, ended }
}

describe('many clients', () => {
  // Watches the number of connections and the time for a request (MAX_CONTROL_CONNECTIONS, CONTROL_REQUEST_TIMEOUT_MS: server.ts).
  it('that say nothing hold few places, little memory, and no longer than a request may take', async () => {
    const [{ rss: before }, files] = [await host.memory(), await openFiles(host.pid)]
    let most = 0
    const ended: Promise<void>[] = []
    for (let count = 0; count < CLIENTS; count += AT_ONCE) {
      for (const client of await Promise.all(Array.from({ length: AT_ONCE }, knock))) ended.push(client.ended)
      most = Math.max(most, await openFiles(host.pid) - files)
    }
    const start = performance.now()
    await Promise.all(ended)
    expect(performance.now() - start).toBeLessThan(3 * CONTROL_REQUEST_TIMEOUT_MS)
    expect(most).toBeGreaterThan(0)
    expect(most).toBeLessThanOrEqual(MAX_CONTROL_CONNECTIONS + 8)
    expect((await host.memory()).peak - before).toBeLessThan(60)
    expect(await host.client.status()).toMatchObject({ peerId: host.peerId })
  }, 120_000)

  // Watches the bytes of the headers of a request (node:http's own bound, which server.ts leaves as it is).
  it('whose headers never end are turned away, and their headers not kept', async () => {
    const { rss: before } = await host.memory()
    const line = `x: ${'x'.repeat(1000)}\r\n`
    await Promise.all(Array.from({ length: MAX_CONTROL_CONNECTIONS / 2 }, async () => {
      const { socket, ended } = await knock()
      socket.write('GET /v1/status HTTP/1.1\r\n')
      const writing = setInterval(() => { socket.write(line.repeat(10)) }, 5)
      await ended
      clearInterval(writing)
    }))
    expect((await host.memory()).peak - before).toBeLessThan(60)
    expect(await host.client.status()).toMatchObject({ peerId: host.peerId })
  }, 120_000)
})

describe('the port of the metrics', () => {
  async function statusFor(port: string, name: string): Promise<number | undefined> {
    const [response] = await once(get(`http://127.0.0.1:${port}/metrics`, { headers: { host: name } }), 'response') as [IncomingMessage]
    response.resume()
    return response.statusCode
  }

  // Watches that no page of the web reads them by a name that was pointed to loopback (isOurs, daemon.ts and metrics/server.ts).
  it.each([['127.0.0.1', 403], ['0.0.0.0', 200]])('open on %s answers whoever asks for another host with %i', async (address, status) => {
    const daemon = await TestDaemon.start({ env: { NARVIK_LOG_LEVEL: 'info', NARVIK_METRICS_PORT: '0', NARVIK_METRICS_HOST: address } })
    const [, port = ''] = /metrics host=\S+ port=(\d+)/.exec(daemon.log) ?? []
    expect([await statusFor(port, 'localhost:4651'), await statusFor(port, 'evil.example:4651'), await statusFor(port, '127.0.0.1.evil.example')]).toEqual([200, status, status])
  })
})
