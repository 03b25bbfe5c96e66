import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { openSocket } from '../../../src/nix/daemon-socket.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

async function listen(onConnection: (socket: Socket) => void = () => undefined): Promise<{ path: string, server: Server }> {
  const path = join(await temporaryDirectory(), 'socket')
  const server = createServer(onConnection).listen(path)
  onTestFinished(() => { server.close() })
  await once(server, 'listening')
  return { path, server }
}

it('passes bytes on, also more than the socket has room for', async () => {
  const received = Promise.withResolvers<number>()
  const { path } = await listen(socket => {
    let bytes = 0
    socket.on('data', data => { if ((bytes += data.length) === 8_000_004) received.resolve(bytes) })
    socket.write('hello')
  })
  const daemon = openSocket(path)
  for (let part = 0; part < 4; part++) await daemon.write(Buffer.alloc(2_000_000, part), Buffer.alloc(1))
  const { value } = await daemon.output[Symbol.asyncIterator]().next() as { value: Uint8Array }
  expect(Buffer.from(value).toString()).toBe('hello')
  expect(await received.promise).toBe(8_000_004)
  expect(await daemon.stop()).toBe('nothing')
})

it('says what is wrong where nobody listens', async () => {
  const daemon = openSocket(join(await temporaryDirectory(), 'socket'))
  await expect(daemon.write(Buffer.alloc(20_000_000))).rejects.toMatchObject({ code: 'nix-failed' })
  await expect(daemon.stop()).rejects.toMatchObject({ kind: 'failed', message: expect.stringContaining('found ENOENT, needed a daemon that this user may use') as string })
})

it('refuses to write once the other side has gone away', async () => {
  const { path } = await listen(socket => { socket.destroy() })
  const daemon = openSocket(path)
  const write = async (): Promise<void> => { for (;;) await daemon.write(Buffer.alloc(1_000_000)) }
  await expect(write()).rejects.toThrow(`Cannot write to the Nix daemon at ${path}: found the connection closed`)
  await daemon.stop().catch(() => undefined)
})

it('is ended by its signal', async () => {
  const ended = Promise.withResolvers<undefined>()
  const { path, server } = await listen(socket => {
    socket.on('error', () => undefined).on('close', () => { ended.resolve(undefined) })
    socket.resume()
  })
  const controller = new AbortController()
  const daemon = openSocket(path, { signal: controller.signal })
  await once(server, 'connection')
  controller.abort()
  await ended.promise
  expect(await daemon.stop()).toBe('nothing')
})
