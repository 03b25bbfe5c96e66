import type { AsyncLocalStorage } from 'node:async_hooks'
import { codeOf } from '../errors.ts'
import { reasonCode } from '../image/reasons.ts'
import type { Evidence } from '../image/verdict.ts'
import { MAX_TRACED_PEERS } from '../limits.ts'
import type { TaskContext } from '../tasks/context.ts'
import type { Job, JobChange, Jobs } from '../tasks/jobs.ts'
import { Phases } from './phases.ts'
import type { Span, Spans } from './spans.ts'

/** Work that is a trace of its own. An import and an installation are one from the request on, see `traced`. */
const TRACED = new Set(['fetch', 'resume', 'closure', 'verify', 'scrub'])

interface Open {
  readonly span: Span
  readonly phases: Phases
  readonly unwatch: () => void
}

type Watched = Pick<TaskContext, 'catalog'> & Record<'jobs' | 'closures', Pick<Jobs, 'onChange'>>

/** Makes a trace of every fetch, verification and scrub of this host, whoever asked for it; returns how to stop that. */
export function traceWork(spans: Spans, { catalog, jobs, closures }: Watched, running: AsyncLocalStorage<Phases>): () => void {
  const open = new Map<Job<unknown>, Open>()

  function take(job: Job<unknown>, change: JobChange): void {
    if (change.event === 'started') {
      // What a request does on an image when its turn has come is the last part of that request.
      if (job.kind === 'import') running.getStore()?.begin('publishing')
      if (TRACED.has(job.kind)) open.set(job, begin(spans, job))
      return
    }
    const known = open.get(job)
    if (known === undefined) return
    open.delete(job)
    finish(known, job, change.event === 'failed' ? codeOf(change.error) : undefined)
  }

  const stops = [
    jobs.onChange(take),
    closures.onChange(take),
    catalog.onStep(({ narHash, event, evidence }) => {
      if (event !== 'pass' && event !== 'fail') return
      for (const [job, { span }] of open) if (job.narHash.equals(narHash)) judge(span, event, evidence)
    }),
  ]
  return () => {
    for (const stop of stops) stop()
    for (const [job, known] of open) finish(known, job, 'interrupted')
    open.clear()
  }
}

function begin(spans: Spans, job: Job<unknown>): Open {
  const span = spans.start(job.kind, { facts: { nar_hash: job.narHash.toSri() } })
  const phases = new Phases(spans, span)
  return { span, phases, unwatch: job.watch(progress => { phases.take(progress) }) }
}

function finish({ span, phases, unwatch }: Open, { progress }: Job<unknown>, code: string | undefined): void {
  unwatch()
  phases.take(progress)
  phases.end(code)
  if (progress.totalBytes !== null) span.add({ nar_size: progress.totalBytes })
  span.end(code === undefined ? {} : { code })
}

/** What the verify pipeline has found, and where the bytes came from. */
function judge(span: Span, event: 'pass' | 'fail', evidence: Evidence | null): void {
  span.add({ verdict: event })
  const reason = reasonCode({ event, evidence })
  if (reason !== null) span.add({ reason })
  for (const { stage, verdict, milliseconds } of evidence?.verdict?.stages ?? []) span.note('stage', { stage, verdict, milliseconds })
  for (const { peerId, bytes, wasted = 0, outcome } of (evidence?.peers ?? []).slice(0, MAX_TRACED_PEERS)) span.note('peer', { peer_id: peerId, bytes, wasted, outcome })
  if (evidence?.sources === undefined) return
  const { reused, zeros, wasted } = evidence.sources
  span.add({ reused_bytes: reused.reduce((sum, { bytes }) => sum + bytes, 0), zero_bytes: zeros, wasted_bytes: wasted })
}
