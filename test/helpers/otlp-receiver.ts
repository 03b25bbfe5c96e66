import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

export interface ReceivedSpan {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parent: string | undefined
  /** 1: internal, 2: server. */
  readonly kind: number
  /** 2: error. */
  readonly status: number
  readonly start: bigint
  readonly end: bigint
  readonly facts: Readonly<Record<string, unknown>>
  readonly events: readonly { readonly name: string, readonly facts: Readonly<Record<string, unknown>> }[]
  /** Of the host that sent it. */
  readonly resource: Readonly<Record<string, unknown>>
}

interface KeyValue { readonly key: string, readonly value: Readonly<Record<string, unknown>> }
interface Sent {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] }
    readonly scopeSpans: readonly { readonly spans: readonly {
      readonly name: string, readonly traceId: string, readonly spanId: string, readonly parentSpanId?: string, readonly kind: number, readonly startTimeUnixNano: string
      readonly endTimeUnixNano: string, readonly attributes: readonly KeyValue[], readonly events: readonly { readonly name: string, readonly attributes: readonly KeyValue[] }[]
      readonly status: { readonly code?: number }
    }[] }[]
  }[]
}

/** A receiver of OTLP/HTTP with JSON: what a collector is to the daemon. */
export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = []
  /** Everything that came, as it came. */
  readonly bodies: string[] = []
  readonly requests: { readonly url: string, readonly type: string }[] = []
  endpoint = ''

  static async start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver()
    const server = createServer((request, response) => {
      let body = ''
      request.setEncoding('utf8').on('data', (part: string) => { body += part }).on('end', () => {
        receiver.requests.push({ url: request.url ?? '', type: request.headers['content-type'] ?? '' })
        receiver.#take(body)
        response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
      })
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => { server.closeAllConnections(); server.close() })
    receiver.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    return receiver
  }

  /** The spans of a host that have the name. */
  of(peerId: string, name: string): ReceivedSpan[] {
    return this.spans.filter(span => span.name === name && span.resource['service.instance.id'] === peerId)
  }

  childrenOf({ spanId, traceId }: ReceivedSpan): ReceivedSpan[] {
    return this.spans.filter(span => span.parent === spanId && span.traceId === traceId)
  }

  #take(body: string): void {
    this.bodies.push(body)
    for (const { resource, scopeSpans } of (JSON.parse(body) as Sent).resourceSpans) {
      for (const { name, traceId, spanId, parentSpanId, kind, status, startTimeUnixNano, endTimeUnixNano, attributes, events } of scopeSpans.flatMap(({ spans }) => spans)) {
        this.spans.push({
          name, traceId, spanId, parent: parentSpanId, kind, status: status.code ?? 0, start: BigInt(startTimeUnixNano), end: BigInt(endTimeUnixNano), facts: factsOf(attributes),
          events: events.map(event => ({ name: event.name, facts: factsOf(event.attributes) })), resource: factsOf(resource.attributes),
        })
      }
    }
  }
}

function factsOf(attributes: readonly KeyValue[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))
}
