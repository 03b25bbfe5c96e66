import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { NarvikError, messageOf, systemCode } from '../errors.ts'
import { MAX_CONTROL_ANSWER_BYTES } from '../limits.ts'
import {
  banListSchema, banSchema, collectionSchema, errorAnswerSchema, EVENT_STREAM, eventSchema, explanationSchema, exportResultSchema, hostEventSchema,
  imageDetailsSchema, imageListSchema, imageSchema, installResultSchema, peerListSchema, publishedNameListSchema, publishedNameSchema, queueSchema,
  statusSchema, transferListSchema, usageSchema, verifyReportSchema,
  type BanJson, type CollectionJson, type ErrorBody, type ExplanationJson, type ExportResultJson, type HostEvent, type ImageDetailsJson, type ImageJson,
  type InstallResultJson, type PeerJson, type Progress, type PublishedNameJson, type QueueJson, type StatusJson, type TransferJson, type UsageJson,
  type VerifyReportJson,
} from './api.ts'

export interface CallOptions {
  readonly signal?: AbortSignal
}

export interface WorkOptions extends CallOptions {
  readonly onProgress?: (progress: Progress) => void
}

/**
 * Asks the daemon behind a control socket; references and paths are sent as text, and the daemon judges them.
 * Every method throws the NarvikError that the daemon answered, or `unreachable`.
 */
export class ControlClient {
  readonly #socket: string
  readonly #howToStart: string

  /** `howToStart` is what to do where no daemon answers. */
  constructor({ socket, howToStart = 'Start one with: narvik daemon; or name its socket with --socket' }: { readonly socket: string, readonly howToStart?: string | undefined }) {
    this.#socket = socket
    this.#howToStart = howToStart
  }

  status(options?: CallOptions): Promise<StatusJson> {
    return this.#ask('GET', '/v1/status', statusSchema, options)
  }

  peers(options?: CallOptions): Promise<PeerJson[]> {
    return this.#ask('GET', '/v1/peers', peerListSchema, options)
  }

  bans(options?: CallOptions): Promise<BanJson[]> {
    return this.#ask('GET', '/v1/bans', banListSchema, options)
  }

  unban(peerId: string, options?: CallOptions): Promise<BanJson> {
    return this.#ask('DELETE', `/v1/bans/${encodeURIComponent(peerId)}`, banSchema, options)
  }

  transfers(options?: CallOptions): Promise<TransferJson[]> {
    return this.#ask('GET', '/v1/transfers', transferListSchema, options)
  }

  list(options?: CallOptions): Promise<ImageJson[]> {
    return this.#ask('GET', '/v1/images', imageListSchema, options)
  }

  show(ref: string, options?: CallOptions): Promise<ImageDetailsJson> {
    return this.#ask('GET', `/v1/images/${encodeURIComponent(ref)}`, imageDetailsSchema, options)
  }

  explain(ref: string, options?: CallOptions): Promise<ExplanationJson> {
    return this.#ask('GET', `/v1/images/${encodeURIComponent(ref)}/explanation`, explanationSchema, options)
  }

  remove(ref: string, options?: CallOptions): Promise<ImageJson> {
    return this.#ask('DELETE', `/v1/images/${encodeURIComponent(ref)}`, imageSchema, options)
  }

  usage(options?: CallOptions): Promise<UsageJson> {
    return this.#ask('GET', '/v1/usage', usageSchema, options)
  }

  queue(options?: CallOptions): Promise<QueueJson> {
    return this.#ask('GET', '/v1/queue', queueSchema, options)
  }

  /** Answers with the queue as it is then. */
  moveInQueue(request: { readonly ref: string, readonly position: number }, options?: CallOptions): Promise<QueueJson> {
    return this.#ask('POST', '/v1/queue', queueSchema, options, JSON.stringify(request))
  }

  cancel(ref: string, options?: CallOptions): Promise<ImageJson> {
    return this.#ask('POST', '/v1/cancel', imageSchema, options, JSON.stringify({ ref }))
  }

  pin(ref: string, options?: CallOptions): Promise<ImageJson> {
    return this.#ask('POST', '/v1/pin', imageSchema, options, JSON.stringify({ ref }))
  }

  unpin(ref: string, options?: CallOptions): Promise<ImageJson> {
    return this.#ask('POST', '/v1/unpin', imageSchema, options, JSON.stringify({ ref }))
  }

  gc(request: { readonly freeBytes?: number, readonly dryRun?: boolean }, options?: WorkOptions): Promise<CollectionJson> {
    return this.#work('/v1/gc', request, collectionSchema, options)
  }

  /** In Prometheus' text format. */
  async metrics({ signal }: CallOptions = {}): Promise<string> {
    const response = await this.#send('GET', '/metrics', undefined, signal)
    if (response.statusCode !== 200) throw failure(checked(errorAnswerSchema, await readDocument(response, signal)).error)
    let text = ''
    for await (const part of readText(response, signal)) {
      text += part
      limit(text)
    }
    return text
  }

  /** What happens from now on, until the signal aborts; ends with `unreachable` when the daemon does. */
  async * events({ signal }: CallOptions = {}): AsyncGenerator<HostEvent, never> {
    const response = await this.#send('GET', '/v1/events', undefined, signal)
    if (response.headers['content-type'] !== EVENT_STREAM) throw failure(checked(errorAnswerSchema, await readDocument(response, signal)).error)
    for await (const line of readLines(response, signal)) {
      const event = hostEventSchema.safeParse(parse(line))
      // What only a newer daemon tells is left out.
      if (event.success) yield event.data
    }
    throw connectionLost()
  }

  import(request: { readonly path: string, readonly name?: string, readonly closure?: boolean, readonly private?: boolean }, options?: WorkOptions): Promise<ImageJson> {
    return this.#work('/v1/import', request, imageSchema, options)
  }

  fetch(request: { readonly ref: string, readonly name?: string, readonly closure?: boolean, readonly timeoutSeconds?: number, readonly priority?: number }, options?: WorkOptions): Promise<ImageJson> {
    return this.#work('/v1/fetch', request, imageSchema, options)
  }

  verify(request: ({ readonly ref: string } | { readonly all: true }) & { readonly repair?: true }, options?: WorkOptions): Promise<VerifyReportJson> {
    return this.#work('/v1/verify', request, verifyReportSchema, options)
  }

  export(request: { readonly ref: string, readonly dest: string }, options?: WorkOptions): Promise<ExportResultJson> {
    return this.#work('/v1/export', request, exportResultSchema, options)
  }

  install(request: { readonly ref: string, readonly closure?: boolean, readonly checkSignatures?: boolean }, options?: WorkOptions): Promise<InstallResultJson> {
    return this.#work('/v1/install', request, installResultSchema, options)
  }

  names(options?: CallOptions): Promise<PublishedNameJson[]> {
    return this.#ask('GET', '/v1/names', publishedNameListSchema, options)
  }

  /** `record`: base64. */
  publish(request: { readonly record: string }, options?: CallOptions): Promise<PublishedNameJson> {
    return this.#ask('POST', '/v1/publish', publishedNameSchema, options, JSON.stringify(request))
  }

  makePrivate(request: { readonly ref: string, readonly private: boolean }, options?: CallOptions): Promise<ImageJson> {
    return this.#ask('POST', '/v1/private', imageSchema, options, JSON.stringify(request))
  }

  async #ask<T>(method: string, path: string, schema: z.ZodType<T>, { signal }: CallOptions = {}, body?: string): Promise<T> {
    const response = await this.#send(method, path, body, signal)
    const answer = await readDocument(response, signal)
    if (response.statusCode !== 200) throw failure(checked(errorAnswerSchema, answer).error)
    return checked(schema, answer)
  }

  async #work<T>(path: string, request: object, schema: z.ZodType<T>, { onProgress, signal }: WorkOptions = {}): Promise<T> {
    const response = await this.#send('POST', path, JSON.stringify(request), signal)
    if (response.headers['content-type'] !== EVENT_STREAM) throw failure(checked(errorAnswerSchema, await readDocument(response, signal)).error)
    for await (const line of readLines(response, signal)) {
      const event = checked(eventSchema, parse(line))
      if (event.type === 'progress') onProgress?.(event)
      else if (event.type === 'error') throw failure(event.error)
      else return checked(schema, event.result)
    }
    throw connectionLost()
  }

  #send(method: string, path: string, body: string | undefined, signal: AbortSignal | undefined): Promise<IncomingMessage> {
    const headers = body === undefined ? {} : { 'content-type': 'application/json', 'accept': `application/json, ${EVENT_STREAM}`, 'content-length': Buffer.byteLength(body) }
    return new Promise((resolve, reject) => {
      const request = httpRequest({ socketPath: this.#socket, method, path, headers, agent: false, ...(signal === undefined ? {} : { signal }) })
      request.once('response', resolve)
      // Stays for the whole answer: a connection that breaks later is reported by the response, and again here.
      request.on('error', error => { reject(this.#unreachable(error)) })
      request.end(body)
    })
  }

  #unreachable(error: Error): Error {
    if (error.name === 'AbortError') return error
    if (systemCode(error) === 'ECONNRESET') return connectionLost(error)
    if (systemCode(error) === 'EACCES') {
      return new NarvikError('unreachable', `Cannot reach the daemon on ${this.#socket}: found a socket that this user may not open, needed its owner or a user of its group`, { hint: MAY_NOT_OPEN, cause: error })
    }
    return new NarvikError('unreachable', `Cannot reach the daemon on ${this.#socket}: found ${REASONS[systemCode(error) ?? ''] ?? messageOf(error)}, needed a daemon that answers`, { hint: this.#howToStart, cause: error })
  }
}

const MAY_NOT_OPEN = 'Run the command as the user of the daemon, or be in its group (of the service: usermod -aG narvik USER, then log in anew)'
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such socket',
  ECONNREFUSED: 'a socket without a daemon behind it',
  ENOTSOCK: 'a file that is no socket',
}

async function readDocument(response: IncomingMessage, signal: AbortSignal | undefined): Promise<unknown> {
  let text = ''
  for await (const part of readText(response, signal)) {
    text += part
    limit(text)
  }
  return parse(text)
}

async function * readLines(response: IncomingMessage, signal: AbortSignal | undefined): AsyncGenerator<string> {
  let rest = ''
  for await (const part of readText(response, signal)) {
    rest += part
    limit(rest)
    if (!part.includes('\n')) continue
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    yield * lines
  }
}

async function * readText(response: IncomingMessage, signal: AbortSignal | undefined): AsyncGenerator<string> {
  response.setEncoding('utf8')
  try {
    for await (const part of response) yield part as string
  } catch (error) {
    signal?.throwIfAborted()
    throw systemCode(error) === 'ECONNRESET' ? connectionLost(error) : error
  }
}

function limit(text: string): void {
  if (text.length > MAX_CONTROL_ANSWER_BYTES) throw notNarvik(`more than ${MAX_CONTROL_ANSWER_BYTES} bytes`)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw notNarvik('text that is no JSON', error)
  }
}

function checked<T>(schema: z.ZodType<T>, answer: unknown): T {
  const result = schema.safeParse(answer)
  if (!result.success) throw notNarvik(`a bad ${result.error.issues[0]?.path.join('.') ?? 'document'}`, result.error)
  return result.data
}

function notNarvik(found: string, cause?: unknown): NarvikError {
  return new NarvikError('unreachable', `Cannot read the daemon's answer: found ${found}, needed one of docs/CONTROL-API.md`, { hint: 'Check that the socket is that of a Narvik daemon, of about this version', cause })
}

function connectionLost(cause?: unknown): NarvikError {
  return new NarvikError('unreachable', 'Cannot finish: found the daemon gone before its answer was complete, needed it running', { hint: 'Ask again once it is up; what was received is kept', cause })
}

function failure({ code, message, hint }: ErrorBody): NarvikError {
  return new NarvikError(code, message, hint === null ? {} : { hint })
}
