import type { z } from 'zod'
import { NarvikError } from '../errors.ts'
import { explainMismatch } from '../mismatch.ts'
import {
  exportRequest, fetchRequest, gcRequest, importRequest, installRequest, moveRequest, noFields, peerIdParams, privateRequest, publishRequest, refParams, refRequest,
  verifyRequest,
  type Awaitable, type LongWork, type Tasks,
} from './api.ts'

type Run = (tasks: Tasks, work: LongWork) => Awaitable<unknown>

/** One request that the control socket answers. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly url: string
  /** Whether it may be answered with a stream of events. */
  readonly long: boolean
  /**
   * Checks the fields of a request and binds them to the task.
   * @throws NarvikError `invalid-argument` with the field.
   */
  readonly prepare: (fields: unknown) => Run
}

/** Answered with a document a line for as long as the client listens. */
export const EVENTS_URL = '/v1/events'
/** Answered in Prometheus' text format, where Prometheus looks for it. */
export const METRICS_URL = '/metrics'

export const ROUTES: readonly Route[] = [
  short('GET', '/v1/status', noFields, tasks => tasks.status()),
  short('GET', '/v1/peers', noFields, tasks => tasks.peers()),
  short('GET', '/v1/bans', noFields, tasks => tasks.bans()),
  short('DELETE', '/v1/bans/:peerId', peerIdParams, (tasks, request) => tasks.unban(request)),
  short('GET', '/v1/transfers', noFields, tasks => tasks.transfers()),
  short('GET', '/v1/images', noFields, tasks => tasks.list()),
  short('GET', '/v1/images/:ref', refParams, (tasks, { ref }) => tasks.show(ref)),
  short('GET', '/v1/images/:ref/explanation', refParams, (tasks, { ref }) => tasks.explain(ref)),
  short('GET', '/v1/images/:ref/chunks', refParams, (tasks, { ref }) => tasks.chunks(ref)),
  short('DELETE', '/v1/images/:ref', refParams, (tasks, { ref }) => tasks.removeImage({ ref })),
  short('GET', '/v1/names', noFields, tasks => tasks.names()),
  short('POST', '/v1/publish', publishRequest, (tasks, { record }) => tasks.publishName({ record: Buffer.from(record, 'base64') })),
  short('GET', '/v1/usage', noFields, (tasks, _, work) => tasks.usage(work)),
  short('POST', '/v1/pin', refRequest, (tasks, { ref }) => tasks.pinImage({ ref, pinned: true })),
  short('POST', '/v1/unpin', refRequest, (tasks, { ref }) => tasks.pinImage({ ref, pinned: false })),
  short('GET', '/v1/queue', noFields, tasks => tasks.queue()),
  short('POST', '/v1/queue', moveRequest, (tasks, request) => tasks.moveInQueue(request)),
  short('POST', '/v1/cancel', refRequest, (tasks, request) => tasks.cancelFetch(request)),
  long('/v1/gc', gcRequest, (tasks, request, work) => tasks.collectGarbage({ ...request, ...work })),
  short('POST', '/v1/private', privateRequest, (tasks, request) => tasks.makePrivate(request)),
  long('/v1/import', importRequest, (tasks, request, work) => tasks.importImage({ ...request, ...work })),
  long('/v1/fetch', fetchRequest, (tasks, request, work) => tasks.fetchImage({ ...request, ...work })),
  long('/v1/verify', verifyRequest, (tasks, { ref, repair }, work) => tasks.verifyImages({ ref: ref ?? 'all', repair, ...work })),
  long('/v1/export', exportRequest, (tasks, request, work) => tasks.exportImage({ ...request, ...work })),
  long('/v1/install', installRequest, (tasks, request, work) => tasks.installImage({ ...request, ...work })),
]

/** Whether the page asks it; only what reads, and nothing that takes long, as usage does. */
export function isForPage({ method, url }: Route): boolean {
  return method === 'GET' && url !== '/v1/usage'
}

function short<T>(method: 'GET' | 'POST' | 'DELETE', url: string, schema: z.ZodType<T>, run: (tasks: Tasks, input: T, work: LongWork) => Awaitable<unknown>): Route {
  return { method, url, long: false, prepare: bindTo(`${method} ${url}`, schema, run) }
}

function long<T>(url: string, schema: z.ZodType<T>, run: (tasks: Tasks, input: T, work: LongWork) => Awaitable<unknown>): Route {
  return { method: 'POST', url, long: true, prepare: bindTo(`POST ${url}`, schema, run) }
}

function bindTo<T>(route: string, schema: z.ZodType<T>, run: (tasks: Tasks, input: T, work: LongWork) => Awaitable<unknown>) {
  return (fields: unknown): Run => {
    const result = schema.safeParse(fields)
    if (!result.success) throw badRequest(route, result.error, fields)
    return (tasks, work) => run(tasks, result.data, work)
  }
}

function badRequest(route: string, error: z.ZodError, fields: unknown): NarvikError {
  const { field, found, needed } = explainMismatch(error, fields)
  const place = field === '' ? '' : ` as ${field}`
  return new NarvikError('invalid-argument', `Cannot take ${route}: found ${found}${place}, needed ${needed}`)
}
