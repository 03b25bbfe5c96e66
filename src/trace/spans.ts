import type { Attributes, Span as OtelSpan, SpanStatusCode } from '@opentelemetry/api'
import { messageOf, NarvikError } from '../errors.ts'
import { MAX_SPANS_WAITING, TRACES_EXPORT_TIMEOUT_MS, TRACES_STOP_TIMEOUT_MS } from '../limits.ts'
import type { Logger } from '../log.ts'

/** What is said of a span: hashes, peer ids, codes and numbers; no path, no key, and no text that others have written. */
export type Facts = Readonly<Record<string, string | number | boolean>>

/** A piece of work that goes on, or has ended. */
export interface Span {
  add(facts: Facts): void
  /** Something that happened meanwhile. */
  note(name: string, facts: Facts): void
  /** `code` is that of the error that ended it. */
  end(result?: { readonly code?: string, readonly at?: Date }): void
}

export interface SpanInit {
  readonly parent?: Span | undefined
  readonly facts?: Facts
  readonly at?: Date
  /** Whether a peer has asked for it. */
  readonly isServing?: boolean
}

/** Where spans come from. */
export interface Spans {
  start(name: string, init?: SpanInit): Span
}

export interface TracesInit {
  /** Base address of an OTLP receiver. */
  readonly endpoint: string | null
  readonly version: string
  readonly peerId: string
  readonly env: NodeJS.ProcessEnv
}

export interface Exporting extends Spans {
  /** Sends what is left, for as long as that takes no time to speak of. */
  stop(): Promise<void>
}

/** The address that traces are sent to; undefined where none is configured. The variables are those that OpenTelemetry defines. */
export function tracesAddress({ endpoint, env }: Pick<TracesInit, 'endpoint' | 'env'>): string | undefined {
  if (env.OTEL_SDK_DISABLED?.toLowerCase() === 'true') return undefined
  const base = endpoint ?? env.OTEL_EXPORTER_OTLP_ENDPOINT
  if (endpoint === null && env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) return env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
  return base ? `${base.replace(/\/+$/, '')}/v1/traces` : undefined
}

/**
 * Has spans sent to an OTLP receiver over HTTP; undefined where none is configured, and then nothing of OpenTelemetry is loaded. A receiver that does not
 * answer costs a bounded number of spans, and nothing else.
 * @throws NarvikError `invalid-config` where the address is none.
 */
export async function startExporting(init: TracesInit, { logger }: { readonly logger: Logger }): Promise<Exporting | undefined> {
  const url = tracesAddress(init)
  if (url === undefined) return undefined
  if (!/^https?:/.test(url) || !URL.canParse(url)) {
    throw new NarvikError('invalid-config', `Cannot send traces to ${url}: found no http or https address, needed one such as http://127.0.0.1:4318`, { hint: 'See traces.endpoint, and the variable OTEL_EXPORTER_OTLP_ENDPOINT' })
  }
  const { diag, DiagLogLevel, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } = await import('@opentelemetry/api')
  const { BatchSpanProcessor, TracerProvider } = await import('@opentelemetry/sdk-trace')
  const { detectResources, resourceAttributesEnvDetector, resourceFromAttributes, serviceNameEnvDetector } = await import('@opentelemetry/resources')
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http')
  diag.setLogger(complaints(logger), { logLevel: DiagLogLevel.ERROR, suppressOverrideMessage: true })
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: TRACES_EXPORT_TIMEOUT_MS })
  const resource = resourceFromAttributes({ 'service.name': 'narvik', 'service.version': init.version, 'service.instance.id': init.peerId })
    .merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] }))
  const provider = new TracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor({ exporter, maxQueueSize: MAX_SPANS_WAITING, exportTimeoutMillis: TRACES_EXPORT_TIMEOUT_MS })],
    spanLimits: { attributeValueLengthLimit: 256, attributeCountLimit: 32, eventCountLimit: 128 },
  })
  const tracer = provider.getTracer('narvik', init.version)
  return {
    // The clock of all is the same: by its own, a span may end a little after the one that it is in.
    start: (name, { parent, facts = {}, at = new Date(), isServing = false } = {}) => {
      const context = parent instanceof ExportedSpan ? trace.setSpan(ROOT_CONTEXT, parent.span) : ROOT_CONTEXT
      const kind = isServing ? SpanKind.SERVER : SpanKind.INTERNAL
      return new ExportedSpan(tracer.startSpan(name, { attributes: named(facts), kind, startTime: at }, context), SpanStatusCode.ERROR)
    },
    stop: async () => {
      const ending = provider.shutdown().catch((error: unknown) => { logger.debug('the last traces were not sent', { reason: messageOf(error) }) })
      await Promise.race([ending, new Promise(resolve => setTimeout(resolve, TRACES_STOP_TIMEOUT_MS).unref())])
      diag.disable()
    },
  }
}

class ExportedSpan implements Span {
  readonly span: OtelSpan
  readonly #errorStatus: SpanStatusCode

  constructor(span: OtelSpan, errorStatus: SpanStatusCode) {
    this.span = span
    this.#errorStatus = errorStatus
  }

  add(facts: Facts): void {
    this.span.setAttributes(named(facts))
  }

  note(name: string, facts: Facts): void {
    this.span.addEvent(name, named(facts))
  }

  end({ code, at = new Date() }: { readonly code?: string, readonly at?: Date } = {}): void {
    if (code !== undefined) {
      this.span.setAttribute('error.type', code)
      this.span.setStatus({ code: this.#errorStatus, message: code })
    }
    this.span.end(at)
  }
}

function named(facts: Facts): Attributes {
  return Object.fromEntries(Object.entries(facts).map(([key, value]) => [`narvik.${key}`, value]))
}

/** Milliseconds between two complaints about a receiver. */
const COMPLAINT_INTERVAL_MS = 60_000

function complaints(logger: Logger) {
  let next = 0
  const error = (message: string): void => {
    if (performance.now() < next) return
    next = performance.now() + COMPLAINT_INTERVAL_MS
    logger.warn('cannot send traces', { reason: message.slice(0, 500) })
  }
  const nothing = (): void => undefined
  return { error, warn: nothing, info: nothing, debug: nothing, verbose: nothing }
}
