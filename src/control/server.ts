import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { NarvikError } from '../errors.ts'
import { CONTROL_REQUEST_TIMEOUT_MS, CONTROL_STOP_TIMEOUT_MS, MAX_CONTROL_BODY_BYTES, MAX_CONTROL_CONNECTIONS, MAX_PAGE_CONNECTIONS, MAX_PAGE_READERS } from '../limits.ts'
import type { Logger } from '../log.ts'
import type { PageFiles } from '../page/files.ts'
import { EVENT_STREAM, type ControlEvent, type Progress, type Tasks } from './api.ts'
import { failureOf, toNarvikError } from './failure.ts'
import { guardPage, guardSocket } from './guard.ts'
import { Outbox } from './outbox.ts'
import { PAGE_URL, showPage } from './page.ts'
import { EVENTS_URL, isForPage, METRICS_URL, ROUTES, type Route } from './routes.ts'
import { listenOnPort, listenOnSocket } from './socket.ts'

export interface ControlServerInit {
  /** Path of the Unix socket. */
  readonly socket: string
  /** Milliseconds for a client to send its whole request. */
  readonly requestTimeoutMs?: number
}

export interface PageServerInit {
  /** A loopback address. */
  readonly host: string
  /** 0 for a free one. */
  readonly port: number
}

export interface ControlComponents {
  readonly tasks: Tasks
  readonly page: PageFiles
  readonly logger: Logger
}

/** How requests come in, and which of them are answered. */
interface Door {
  readonly routes: readonly Route[]
  /** Throws where a request is none to answer. */
  readonly guard: (request: FastifyRequest) => void
  readonly maxReaders: number
  readonly hasMetrics: boolean
  readonly listen: (server: Server) => Promise<void>
}

/** Milliseconds for a bad client to take its answer. */
const ANSWER_TIMEOUT_MS = 1000

/** Characters of one part of an address: a store path, each of its characters %-escaped. */
const MAX_PARAM_CHARS = 4096

/** Answers the requests of docs/CONTROL-API.md on a Unix socket by asking `tasks`, and shows the page. */
export function createControlServer(components: ControlComponents, { socket, requestTimeoutMs }: ControlServerInit): ControlServer {
  const app = createApp({ maxConnections: MAX_CONTROL_CONNECTIONS, ...requestTimeoutMs !== undefined && { requestTimeoutMs } })
  const listen = (server: Server): Promise<void> => listenOnSocket(server, socket)
  return new ControlServer(app, components, { routes: ROUTES, guard: guardSocket, maxReaders: MAX_CONTROL_CONNECTIONS, hasMetrics: true, listen })
}

/** Shows the page on a TCP port, with the questions that it asks; nothing else is answered there, and nothing can be changed. */
export function createPageServer(components: ControlComponents, { host, port }: PageServerInit): ControlServer {
  const app = createApp({ maxConnections: MAX_PAGE_CONNECTIONS })
  const listen = (server: Server): Promise<void> => listenOnPort(server, { host, port })
  app.get('/', (_request, reply) => reply.redirect(PAGE_URL))
  return new ControlServer(app, components, { routes: ROUTES.filter(isForPage), guard: guardPage, maxReaders: MAX_PAGE_READERS, hasMetrics: false, listen })
}

function createApp({ maxConnections, requestTimeoutMs = CONTROL_REQUEST_TIMEOUT_MS }: { readonly maxConnections: number, readonly requestTimeoutMs?: number }): FastifyInstance {
  const app = fastify({
    logger: false,
    bodyLimit: MAX_CONTROL_BODY_BYTES,
    requestTimeout: requestTimeoutMs,
    http: { headersTimeout: requestTimeoutMs, connectionsCheckingInterval: Math.min(requestTimeoutMs, 1000) },
    routerOptions: { maxParamLength: MAX_PARAM_CHARS },
    exposeHeadRoutes: false,
    return503OnClosing: false,
    frameworkErrors: (error, _request, reply) => { sendFailure(reply, error) },
    clientErrorHandler: answerBadClient,
  })
  app.server.maxConnections = maxConnections
  return app
}

export class ControlServer {
  readonly #app: FastifyInstance
  readonly #tasks: Tasks
  readonly #logger: Logger
  readonly #door: Door
  #readers = 0
  readonly #stopping = new AbortController()
  readonly #underWay = new Set<Promise<void>>()

  constructor(app: FastifyInstance, { tasks, page, logger }: ControlComponents, door: Door) {
    this.#app = app
    this.#tasks = tasks
    this.#logger = logger
    this.#door = door
    app.addHook('onRequest', (request, _reply, done) => { door.guard(request); done() })
    app.setErrorHandler((error, _request, reply) => { this.#sendFailure(reply, error) })
    app.setNotFoundHandler(notFound)
    for (const route of door.routes) app.route({ method: route.method, url: route.url, handler: (request, reply) => this.#handle(route, request, reply) })
    if (door.hasMetrics) app.route({ method: 'GET', url: METRICS_URL, handler: (request, reply) => this.#tellMetrics(request, reply) })
    app.route({ method: 'GET', url: EVENTS_URL, handler: (request, reply) => this.#follow(request, reply) })
    showPage(app, page)
  }

  /** Resolves when requests are answered. */
  async start(): Promise<void> {
    await this.#app.ready()
    await this.#door.listen(this.#app.server)
  }

  /** The TCP port, of a server that has one. */
  get port(): number | null {
    const address = this.#app.server.address()
    return typeof address === 'object' ? address?.port ?? null : null
  }

  /** Aborts what is under way, waits until its answers are out, and removes the socket. */
  async stop(): Promise<void> {
    this.#stopping.abort(new NarvikError('interrupted', 'Cannot finish the request: found the daemon stopping, needed it running', { hint: 'Ask again once it is up; what was received is kept' }))
    const closed = this.#app.close()
    const giveUp = new AbortController()
    const answered = Promise.all(this.#underWay)
    await Promise.race([answered, delay(CONTROL_STOP_TIMEOUT_MS, undefined, { signal: giveUp.signal }).catch(() => undefined)])
    giveUp.abort()
    this.#app.server.closeAllConnections()
    await closed
  }

  async #handle(route: Route, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    this.#stopping.signal.throwIfAborted()
    const run = route.prepare(fieldsOf(request))
    this.#track(reply.raw)
    const gone = new AbortController()
    reply.raw.once('close', () => {
      if (!reply.raw.writableFinished) gone.abort(new NarvikError('interrupted', 'Cannot finish the request: found the client gone, needed it connected'))
    })
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal])
    if (!route.long || !wantsEvents(request)) return run(this.#tasks, { signal, onProgress: () => undefined })
    reply.hijack()
    await this.#stream(reply.raw, onProgress => run(this.#tasks, { signal, onProgress }))
    return reply
  }

  /** Progress is left out while the client doesn't take what was sent, so that a slow one costs no memory. */
  async #stream(response: ServerResponse, run: (onProgress: (progress: Progress) => void) => unknown): Promise<void> {
    const send = (event: ControlEvent): void => { response.write(`${JSON.stringify(event)}\n`) }
    response.writeHead(200, { 'content-type': EVENT_STREAM })
    response.flushHeaders()
    try {
      const result = await run(progress => {
        if (!response.writableNeedDrain && !response.writableEnded) send({ type: 'progress', ...progress })
      })
      send({ type: 'result', result })
    } catch (error) {
      this.#report(error)
      send({ type: 'error', error: failureOf(error).body })
    }
    response.end()
  }

  async #tellMetrics(request: FastifyRequest, reply: FastifyReply): Promise<string> {
    fieldsOf(request)
    void reply.type('text/plain; version=0.0.4; charset=utf-8')
    return this.#tasks.metrics()
  }

  /** Tells what happens until the client goes away or the daemon stops. */
  async #follow(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    this.#stopping.signal.throwIfAborted()
    fieldsOf(request)
    const { maxReaders } = this.#door
    if (this.#readers >= maxReaders) throw new NarvikError('refused', `Cannot tell what happens: found ${this.#readers} readers, needed fewer than ${maxReaders}`)
    this.#readers += 1
    this.#track(reply.raw)
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': EVENT_STREAM, 'cache-control': 'no-store' })
    reply.raw.flushHeaders()
    const outbox = new Outbox(reply.raw)
    const unfollow = this.#tasks.follow(event => { outbox.send(event) })
    await untilClosed(reply.raw, this.#stopping.signal)
    unfollow()
    this.#readers -= 1
    reply.raw.end()
    return reply
  }

  #track(response: ServerResponse): void {
    const done = new Promise<void>(resolve => { response.once('close', resolve) })
    this.#underWay.add(done)
    void done.then(() => this.#underWay.delete(done))
  }

  #sendFailure(reply: FastifyReply, error: unknown): void {
    this.#report(error)
    sendFailure(reply, error)
  }

  /** A failure that the client is told of is its own affair, except when it is our mistake. */
  #report(thrown: unknown): void {
    const error = toNarvikError(thrown)
    if (error.code === 'internal') this.#logger.error('a control request failed', { error: error.cause ?? error })
    else this.#logger.debug('a control request was answered with an error', { code: error.code, message: error.message })
  }
}

/** Resolves when the other end has hung up, or the signal aborts. */
function untilClosed(response: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    response.once('close', resolve)
    signal.addEventListener('abort', () => { resolve() }, { once: true })
  })
}

function fieldsOf({ method, params, query, body }: FastifyRequest): unknown {
  const fields = method === 'POST' ? body ?? {} : params
  if (Object.keys(query as object).length === 0) return fields
  throw new NarvikError('invalid-argument', 'Cannot take the request: found fields after the ?, needed none there', { hint: 'Fields of a POST go into its JSON body' })
}

function wantsEvents(request: FastifyRequest): boolean {
  return request.headers.accept?.includes(EVENT_STREAM) ?? false
}

function notFound({ method, url }: FastifyRequest, reply: FastifyReply): void {
  const address = url.length > 100 ? `${url.slice(0, 100)}…` : url
  sendFailure(reply, new NarvikError('not-found', `Cannot answer ${method} ${address}: found no such route, needed one of docs/CONTROL-API.md`))
}

function sendFailure(reply: FastifyReply, error: unknown): void {
  const { status, body } = failureOf(error)
  void reply.status(status).send({ error: body })
}

/** What can't be read as HTTP at all, or came too slowly, has no request to answer; the connection ends with the answer. */
function answerBadClient(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const slow = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const { status, body } = failureOf(slow
    ? new NarvikError('timed-out', 'Cannot take the request: found only a part of it in time, needed all of it')
    : new NarvikError('invalid-argument', `Cannot take the request: found "${error.message}", needed HTTP/1.1`))
  const text = JSON.stringify({ error: body })
  socket.end(`HTTP/1.1 ${status} Error\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`)
  // Who neither reads nor closes would keep the connection, and with it one of those that there may be.
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => { socket.destroy() })
  socket.destroySoon()
}
