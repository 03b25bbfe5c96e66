import { chmod, mkdir, stat, writeFile, readFile } from 'node:fs/promises'
import { createServer, maxHeaderSize } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { NarvikError } from '../../../src/errors.ts'
import { refText } from '../../../src/image/ref.ts'
import { silentLogger } from '../../../src/log.ts'
import type { Progress } from '../../../src/control/api.ts'
import { ControlClient } from '../../../src/control/client.ts'
import { createControlServer } from '../../../src/control/server.ts'
import { PageFiles } from '../../../src/page/files.ts'
import { fakeTasks, goodImage, GOOD_HASH, someProgress } from '../../helpers/fake-tasks.ts'
import { startControl, talkRaw } from '../../helpers/control.ts'
import { temporaryDirectory } from '../../helpers/temporary.ts'

const STORE_PATH = '/nix/store/7rjj9b0l7h6jr5qd6y4wz2g1xk8v0lgn-web-1.0'

function post(path: string, body: string, type = 'application/json'): string {
  return `POST ${path} HTTP/1.1\r\nhost: narvik\r\nconnection: close\r\ncontent-type: ${type}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}

function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nhost: narvik\r\nconnection: close\r\n\r\n`
}

function errorIn(answer: string): { status: number, code: string, message: string, hint: string | null } {
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  const { error } = JSON.parse(body) as { error: { code: string, message: string, hint: string | null } }
  return { status: Number(head.split(' ')[1]), ...error }
}

describe('requests', () => {
  test('every question gets its answer', async () => {
    const { client } = await startControl()
    expect(await client.list()).toHaveLength(2)
    expect(await client.show('web-1')).toMatchObject({ narHash: GOOD_HASH, journal: [{ event: 'create' }] })
    expect(await client.status()).toMatchObject({ peers: 1, images: { verified: 1 } })
    expect(await client.peers()).toHaveLength(1)
    expect(await client.transfers()).toHaveLength(1)
    expect(await client.remove('web-1')).toEqual(goodImage)
    expect(await client.verify({ all: true })).toMatchObject({ results: [{ verdict: 'pass' }, { verdict: 'fail' }] })
    expect(await client.verify({ ref: GOOD_HASH })).toMatchObject({ results: [{ verdict: 'pass' }] })
    expect(await client.export({ ref: 'web-1', dest: '/tmp/out' })).toEqual({ path: '/tmp/out' })
  })

  test('progress arrives in order, before the result', async () => {
    const { client } = await startControl()
    const seen: Progress[] = []
    const image = await client.fetch({ ref: 'web-1', name: 'web-2', timeoutSeconds: 3 }, { onProgress: progress => { seen.push(progress) } })
    expect(image).toMatchObject({ name: 'web-2', source: 'fetch' })
    expect(seen.map(({ phase }) => phase)).toEqual(['receiving', 'verifying'])
    expect(seen[0]).toMatchObject(someProgress)
  })

  test('without the event stream, long work answers one document or one error with its status', async () => {
    const { socket } = await startControl()
    const answer = await talkRaw(socket, post('/v1/import', '{"path":"/srv/a","name":"a"}'))
    expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n/)
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ narHash: GOOD_HASH, name: 'a' })
    expect(errorIn(await talkRaw(socket, post('/v1/fetch', '{"ref":"slow"}')))).toMatchObject({ status: 504, code: 'timed-out', hint: 'Give it more time with --timeout' })
  })

  test('a reference of any form reaches the task as it was meant', async () => {
    const seen: string[] = []
    const { client } = await startControl({ show: ref => { seen.push(refText(ref)); throw new NarvikError('not-found', 'no') } })
    const longest = STORE_PATH.padEnd(STORE_PATH.length + 204, '?')
    for (const ref of [STORE_PATH, longest, GOOD_HASH, 'a+b?c=d', parseHex(GOOD_HASH)]) await expect(client.show(ref)).rejects.toMatchObject({ code: 'not-found' })
    expect(seen).toEqual([STORE_PATH, longest, GOOD_HASH, 'a+b?c=d', GOOD_HASH])
  })

  test('an error keeps its code, message and hint on the way to the client', async () => {
    const { client } = await startControl()
    await expect(client.fetch({ ref: 'slow' })).rejects.toMatchObject({ code: 'timed-out', message: 'Cannot fetch slow: found no provider in 1 s, needed one', hint: 'Give it more time with --timeout' })
    await expect(client.show('nobody')).rejects.toMatchObject({ code: 'not-found', hint: undefined })
  })

  test('a mistake of our own is internal, is logged, and the server lives on', async () => {
    const { client } = await startControl({ list: () => { throw new TypeError('x is not a function') } })
    await expect(client.list()).rejects.toMatchObject({ code: 'internal' })
    expect(await client.peers()).toHaveLength(1)
  })
})

function parseHex(sri: string): string {
  return `sha256:${Buffer.from(sri.slice(7), 'base64').toString('hex')}`
}

describe('clients that go away', () => {
  test('only the signal of the one who left is aborted', async () => {
    const signals: AbortSignal[] = []
    const bothAsked = Promise.withResolvers<undefined>()
    const finished = Promise.withResolvers<undefined>()
    const { client } = await startControl({
      fetchImage: async ({ signal, onProgress }) => {
        onProgress(someProgress)
        if (signals.push(signal) === 2) bothAsked.resolve(undefined)
        await finished.promise
        return goodImage
      },
    })
    const leaving = new AbortController()
    const left = client.fetch({ ref: 'web-1' }, { signal: leaving.signal })
    const firstAsked = expect(left).rejects.toMatchObject({ name: 'AbortError' })
    const stays = client.fetch({ ref: 'web-1' })
    await bothAsked.promise
    leaving.abort()
    await firstAsked
    const [first, second] = signals
    if (first?.aborted === false && second?.aborted === false) {
      await new Promise(resolve => { for (const signal of signals) signal.addEventListener('abort', resolve, { once: true }) })
    }
    expect(signals.filter(({ aborted }) => aborted)).toHaveLength(1)
    finished.resolve(undefined)
    expect(await stays).toEqual(goodImage)
  })

  test('one who has its answer is not taken for gone', async () => {
    const signals: AbortSignal[] = []
    const { client } = await startControl({ fetchImage: ({ signal }) => { signals.push(signal); return Promise.resolve(goodImage) } })
    await client.fetch({ ref: 'web-1' })
    await client.peers()
    expect(signals.map(({ aborted }) => aborted)).toEqual([false])
  })

  test('stopping aborts what is under way, answers it, and takes the socket away', async () => {
    const started = Promise.withResolvers<undefined>()
    const { client, server, socket } = await startControl({
      fetchImage: ({ signal }) => new Promise((_, reject) => {
        started.resolve(undefined)
        signal.addEventListener('abort', () => { reject(signal.reason as Error) })
      }),
    })
    const answer = expect(client.fetch({ ref: 'web-1' })).rejects.toMatchObject({ code: 'interrupted' })
    await started.promise
    await server.stop()
    await answer
    await expect(stat(socket)).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(client.list()).rejects.toMatchObject({ code: 'unreachable' })
  })

  test('a client that reads nothing costs no memory and does not hold up the task', async () => {
    const done = Promise.withResolvers<number>()
    const { socket } = await startControl({
      fetchImage: ({ onProgress }) => {
        const before = process.memoryUsage().rss
        const many = { ...someProgress, peers: Array.from({ length: 50 }, () => ({ peerId: 'p'.repeat(52), bytes: 1 })) }
        for (let i = 0; i < 50_000; i++) onProgress(many)
        done.resolve(process.memoryUsage().rss - before)
        return Promise.resolve(goodImage)
      },
    })
    void talkRaw(socket, post('/v1/fetch', '{"ref":"web-1"}').replace('\r\n\r\n', '\r\naccept: application/x-ndjson\r\n\r\n'))
    expect(await done.promise).toBeLessThan(50 * 1024 ** 2)
  })
})

describe('hostile clients', () => {
  const REFUSED: readonly [string, string, { status: number, code: string, message?: RegExp }][] = [
    ['no JSON', post('/v1/import', '{"path":'), { status: 400, code: 'invalid-argument' }],
    ['an empty body', post('/v1/import', ''), { status: 400, code: 'invalid-argument' }],
    ['an array', post('/v1/import', '[]'), { status: 400, code: 'invalid-argument', message: /found \[\], needed object/ }],
    ['null', post('/v1/import', 'null'), { status: 400, code: 'invalid-argument', message: /found nothing as path, needed string/ }],
    ['a form', post('/v1/import', 'path=/a', 'application/x-www-form-urlencoded'), { status: 400, code: 'invalid-argument', message: /needed application\/json/ }],
    ['a number for a path', post('/v1/import', '{"path":7}'), { status: 400, code: 'invalid-argument', message: /found 7 as path, needed string/ }],
    ['a relative path', post('/v1/import', '{"path":"../etc"}'), { status: 400, code: 'invalid-argument', message: /found "..\/etc" as path, needed an absolute path/ }],
    ['a path with NUL', post('/v1/import', '{"path":"/etc/\\u0000"}'), { status: 400, code: 'invalid-argument' }],
    ['an unknown field', post('/v1/import', '{"path":"/a","force":true}'), { status: 400, code: 'invalid-argument', message: /unknown field "force"/ }],
    ['a prototype', post('/v1/import', '{"path":"/a","__proto__":{"admin":true}}'), { status: 400, code: 'invalid-argument' }],
    ['a name with a slash', post('/v1/import', '{"path":"/a","name":"../x"}'), { status: 400, code: 'invalid-argument', message: /as name/ }],
    ['a name that is a hash', post('/v1/import', JSON.stringify({ path: '/a', name: 'a'.repeat(64) })), { status: 400, code: 'invalid-argument', message: /no NAR hash/ }],
    ['no time at all', post('/v1/fetch', '{"ref":"web-1","timeoutSeconds":0}'), { status: 400, code: 'invalid-argument', message: /found 0 as timeoutSeconds/ }],
    ['neither ref nor all', post('/v1/verify', '{}'), { status: 400, code: 'invalid-argument', message: /needed either ref or all/ }],
    ['both ref and all', post('/v1/verify', '{"ref":"web-1","all":true}'), { status: 400, code: 'invalid-argument' }],
    ['a body over the limit', post('/v1/import', `{"path":"/${'a'.repeat(1024 ** 2)}"}`), { status: 413, code: 'too-large' }],
    ['fields in the query', get('/v1/images?state=rejected'), { status: 400, code: 'invalid-argument' }],
    ['an unknown route', get('/v2/images'), { status: 404, code: 'not-found' }],
    ['another method', post('/v1/images', '{}'), { status: 404, code: 'not-found' }],
    ['a path as a reference', get('/v1/images/..%2F..%2Fetc%2Fpasswd'), { status: 400, code: 'invalid-argument' }],
    ['a path in plain', get('/v1/images/../../etc/passwd'), { status: 404, code: 'not-found' }],
    ['a store path that leaves the store', get(`/v1/images/${encodeURIComponent('/nix/store/../../7rjj9b0l7h6jr5qd6y4wz2g1xk8v0lgn-web')}`), { status: 400, code: 'invalid-argument' }],
    ['NUL in a reference', get('/v1/images/a%00b'), { status: 400, code: 'invalid-argument' }],
    ['a bad escape', get('/v1/images/%zz'), { status: 400, code: 'invalid-argument' }],
    ['a long reference', get(`/v1/images/${'a'.repeat(5000)}`), { status: 400, code: 'invalid-argument' }],
    ['no HTTP', 'HELO narvik\r\n\r\n', { status: 400, code: 'invalid-argument' }],
    ['endless headers', `GET /v1/status HTTP/1.1\r\nx: ${'x'.repeat(100_000)}\r\n\r\n`, { status: 400, code: 'invalid-argument' }],
  ]

  test.each(REFUSED)('%s is refused, and the server lives on', async (_, request, { status, code, message = /^Cannot/ }) => {
    const { socket, client } = await startControl()
    const error = errorIn(await talkRaw(socket, request))
    expect(error).toMatchObject({ status, code })
    expect(error.message).toMatch(message)
    expect(await client.peers()).toHaveLength(1)
  })

  // Guard: requestTimeout, and headersTimeout with it, server.ts: Node takes the longer of the two for a body, and its own is a minute.
  test.each([
    ['half a header', 'POST /v1/import HTTP/1.1\r\nhost: n'],
    ['half a body', post('/v1/import', '{"path":"/srv/a"}').slice(0, -5)],
  ])('%s is given up after its time, and holds nothing up', async (_, half) => {
    const { socket, client } = await startControl({}, { requestTimeoutMs: 300 })
    const answer = talkRaw(socket, half)
    expect(await client.peers()).toHaveLength(1)
    expect(errorIn(await answer)).toMatchObject({ status: 504, code: 'timed-out' })
  }, 40_000)

  // Guard: the time for a whole request counts from its first byte, whatever comes meanwhile (requestTimeout and headersTimeout, server.ts), and not only its bytes.
  test('headers that go on, a line at a time, are given up after the time of a request', async () => {
    const { socket, client } = await startControl({}, { requestTimeoutMs: 300 })
    const connection = connect(socket)
    onTestFinished(() => { connection.destroy() })
    let answer = ''
    connection.on('error', () => undefined).on('data', (part: Buffer) => { answer += part.toString() }).write('GET /v1/peers HTTP/1.1\r\nhost: n\r\n')
    const writing = setInterval(() => { connection.write('x: y\r\n') }, 5)
    await new Promise(resolve => { connection.once('close', resolve) })
    clearInterval(writing)
    // The answer is lost where a line was on its way as the server hung up.
    expect(answer).toMatch(/^(HTTP\/1\.1 504 |$)/)
    expect(connection.bytesWritten).toBeLessThan(maxHeaderSize / 2)
    expect(await client.peers()).toHaveLength(1)
  })

  test('half a request does not keep the server from stopping', async () => {
    const { socket, server } = await startControl()
    const answer = talkRaw(socket, 'POST /v1/import HTTP/1.1\r\nhost: n').catch(() => '')
    await talkRaw(socket, get('/v1/peers'))
    await server.stop()
    await answer
  })

  // Guard: what says nothing is closed when its time is up, and is not waited for to close its own end.
  test('10,000 connections that say nothing and close nothing leave the server usable', async () => {
    const { socket, client } = await startControl({}, { requestTimeoutMs: 500 })
    const connections: Socket[] = []
    onTestFinished(() => { for (const connection of connections) connection.destroy() })
    for (let batch = 0; batch < 100; batch++) {
      await Promise.all(Array.from({ length: 100 }, () => new Promise<void>(resolve => {
        const connection = connect(socket)
        connections.push(connection)
        connection.once('connect', () => { resolve() })
        connection.on('error', () => { resolve() })
      })))
    }
    await expect.poll(async () => client.peers().then(peers => peers.length, () => 0), { timeout: 30_000 }).toBe(1)
  }, 60_000)

  test('whatever a client sends, it gets a status or a closed connection, and the next one an answer', async () => {
    const { socket, client } = await startControl({}, { requestTimeoutMs: 50 })
    await fc.assert(fc.asyncProperty(fc.constantFrom('', 'GET ', 'POST /v1/import HTTP/1.1\r\n'), fc.string({ unit: 'binary', maxLength: 200 }), async (start, rest) => {
      const answer = await talkRaw(socket, `${start}${rest}\r\n\r\n`)
      expect(answer).toMatch(/^(HTTP\/1\.1 [45]\d\d |$)/)
      expect(await client.peers()).toHaveLength(1)
    }), { numRuns: 30 })
  })
})

describe('the socket', () => {
  const server = (socket: string) => createControlServer({ tasks: fakeTasks(), page: new PageFiles(), logger: silentLogger }, { socket })

  test('its directory is made, for the owner alone', async () => {
    const directory = join(await temporaryDirectory(), 'a', 'b')
    const { socket } = await startControl({}, { socket: join(directory, 'narvik.sock') })
    expect((await stat(directory)).mode & 0o777).toBe(0o700)
    expect((await stat(socket)).mode & 0o777).toBe(0o600)
  })

  test('a group that the directory lets in may open it', async () => {
    const directory = await temporaryDirectory()
    await chmod(directory, 0o750)
    const { socket } = await startControl({}, { socket: join(directory, 'narvik.sock') })
    expect((await stat(socket)).mode & 0o777).toBe(0o660)
  })

  test('others who may pass through the directory may not open it', async () => {
    const directory = await temporaryDirectory()
    await chmod(directory, 0o755)
    const { socket } = await startControl({}, { socket: join(directory, 'narvik.sock') })
    expect((await stat(socket)).mode & 0o777).toBe(0o600)
  })

  // Guard: the mode is decided by the directory and set while the file is made, whatever the daemon was started with.
  test.each([0o000, 0o002, 0o022, 0o077, 0o177])('is for its owner, or the group that is let in, with umask %o', async umask => {
    const before = process.umask(umask)
    try {
      for (const [mode, expected] of [[0o700, 0o600], [0o750, 0o660]] as const) {
        const directory = await temporaryDirectory()
        await chmod(directory, mode)
        const { socket } = await startControl({}, { socket: join(directory, 'narvik.sock') })
        expect((await stat(socket)).mode & 0o777).toBe(expected)
        expect(process.umask(umask)).toBe(umask)
      }
    } finally {
      process.umask(before)
    }
  })

  test.each([0o770, 0o777, 0o1777])('a directory with mode %o is refused', async mode => {
    const directory = await temporaryDirectory()
    await chmod(directory, mode)
    await expect(server(join(directory, 'narvik.sock')).start()).rejects.toMatchObject({ code: 'refused' })
  })

  test('one that a dead daemon left is replaced', async () => {
    const socket = join(await temporaryDirectory(), 'narvik.sock')
    await leaveStaleSocket(socket)
    const { client } = await startControl({}, { socket })
    expect(await client.peers()).toHaveLength(1)
  })

  test('one that answers is left alone', async () => {
    const { socket, client } = await startControl()
    await expect(server(socket).start()).rejects.toMatchObject({ code: 'in-use' })
    expect(await client.peers()).toHaveLength(1)
  })

  test('what is no socket is never removed', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'narvik.sock')
    await writeFile(path, 'precious')
    await expect(server(path).start()).rejects.toMatchObject({ code: 'conflict' })
    expect(await readFile(path, 'utf8')).toBe('precious')
    await mkdir(join(directory, 'dir'))
    await expect(server(join(directory, 'dir')).start()).rejects.toMatchObject({ code: 'conflict' })
  })

  test('a path that the kernel would cut off is refused', async () => {
    const path = join(await temporaryDirectory(), 'n'.repeat(100))
    await expect(server(path).start()).rejects.toMatchObject({ code: 'invalid-config' })
  })
})

describe('the client', () => {
  test.each([
    ['no socket', (directory: string) => join(directory, 'absent'), /no such socket/],
    ['a file that is no socket', () => import.meta.filename, /without a daemon|no socket/],
  ])('%s is unreachable, with a hint', async (_, pathIn, message) => {
    const client = new ControlClient({ socket: pathIn(await temporaryDirectory()) })
    const failure = client.list()
    await expect(failure).rejects.toMatchObject({ code: 'unreachable', hint: 'Start one with: narvik daemon; or name its socket with --socket' })
    await expect(failure).rejects.toThrow(message)
  })

  test.each([
    ['no JSON', 'hello'],
    ['JSON of another shape', '[{"narHash":"sha256-nonsense"}]'],
    ['a state that is none', JSON.stringify([{ ...goodImage, state: 'fine' }])],
  ])('an answer that is %s is not believed', async (_, body) => {
    const socket = join(await temporaryDirectory(), 'other.sock')
    const other = createServer((_, response) => { response.end(body) }).listen(socket)
    onTestFinished(() => { other.close() })
    await expect(new ControlClient({ socket }).list()).rejects.toMatchObject({ code: 'unreachable' })
  })

  test.each([
    ['before the first byte', ''],
    ['after an event', `${JSON.stringify({ type: 'progress', ...someProgress })}\n`],
    ['in the middle of the result', '{"type":"result","res'],
  ])('a daemon that dies %s is unreachable, not done', async (_, start) => {
    const socket = join(await temporaryDirectory(), 'other.sock')
    const other = createServer((request, response) => {
      if (start === '') { request.socket.destroy(); return }
      response.writeHead(200, { 'content-type': 'application/x-ndjson' })
      response.write(start, () => { request.socket.destroy() })
    }).listen(socket)
    onTestFinished(() => { other.close() })
    const failure = new ControlClient({ socket }).fetch({ ref: 'a' })
    await expect(failure).rejects.toMatchObject({ code: 'unreachable' })
    await expect(failure).rejects.toThrow(/daemon gone/)
  })

  test('a stream that ends without a result is not done', async () => {
    const socket = join(await temporaryDirectory(), 'other.sock')
    const other = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'application/x-ndjson' }).end(`${JSON.stringify({ type: 'progress', ...someProgress })}\n`)
    }).listen(socket)
    onTestFinished(() => { other.close() })
    const failure = new ControlClient({ socket }).fetch({ ref: 'a' })
    await expect(failure).rejects.toMatchObject({ code: 'unreachable' })
    await expect(failure).rejects.toThrow(/daemon gone/)
  })

  test('fields that a newer daemon adds are left out', async () => {
    const socket = join(await temporaryDirectory(), 'other.sock')
    const other = createServer((_, response) => { response.end(JSON.stringify([{ ...goodImage, shiny: true }])) }).listen(socket)
    onTestFinished(() => { other.close() })
    expect(await new ControlClient({ socket }).list()).toEqual([goodImage])
  })
})

async function leaveStaleSocket(path: string): Promise<void> {
  const { spawn } = await import('node:child_process')
  const child = spawn(process.execPath, ['-e', 'require("net").createServer().listen(process.argv[1], () => console.log("up"))', path], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise(resolve => { child.stdout.once('data', resolve) })
  child.kill('SIGKILL')
  await new Promise(resolve => { child.once('exit', resolve) })
}
