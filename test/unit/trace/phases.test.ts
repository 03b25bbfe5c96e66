import { expect, test } from 'vitest'
import { MAX_TRACED_PEERS } from '../../../src/limits.ts'
import { Phases } from '../../../src/trace/phases.ts'
import { type Facts, tracesAddress, type Span, type Spans } from '../../../src/trace/spans.ts'

class KeptSpan implements Span {
  readonly name: string
  readonly parent: string | undefined
  facts: Facts
  code: string | undefined
  isOver = false

  constructor(name: string, parent: Span | undefined, facts: Facts) {
    this.name = name
    this.parent = parent instanceof KeptSpan ? parent.name : undefined
    this.facts = facts
  }

  add(facts: Facts): void { this.facts = { ...this.facts, ...facts } }
  note(): void { throw new Error('a phase has no events') }

  end({ code }: { readonly code?: string } = {}): void {
    if (this.isOver) throw new Error(`${this.name} has ended twice`)
    this.isOver = true
    this.code = code
  }
}

function keep(): { phases: Phases, kept: KeptSpan[] } {
  const kept: KeptSpan[] = []
  const spans: Spans = {
    start: (name, { parent, facts = {} } = {}) => {
      const span = new KeptSpan(name, parent, facts)
      kept.push(span)
      return span
    },
  }
  return { phases: new Phases(spans, spans.start('fetch')), kept }
}

test('phases follow each other, and each peer has its bytes of each of them', () => {
  const { phases, kept } = keep()
  const peers = (a: number, b?: number) => [{ peerId: 'a', bytes: a }, ...b === undefined ? [] : [{ peerId: 'b', bytes: b }]]
  phases.take({ phase: 'finding', peers: [] })
  phases.take({ phase: 'receiving', peers: [] })
  phases.take({ phase: 'receiving', peers: peers(10) })
  // The report that begins the next phase has the last bytes, and a peer that was not heard of before.
  phases.take({ phase: 'paused', peers: peers(15, 3) })
  phases.take({ phase: 'receiving', peers: peers(15, 3) })
  phases.take({ phase: 'receiving', peers: peers(15, 9) })
  phases.end('no-provider')
  phases.end('no-provider')
  expect(kept.map(({ name, parent, facts, code }) => [name, parent, facts, code])).toEqual([
    ['fetch', undefined, {}, undefined],
    ['finding', 'fetch', {}, undefined],
    ['receiving', 'fetch', {}, undefined],
    ['receiving from peer', 'receiving', { peer_id: 'a', bytes: 15 }, undefined],
    ['receiving from peer', 'receiving', { peer_id: 'b', bytes: 3 }, undefined],
    ['paused', 'fetch', {}, undefined],
    ['receiving', 'fetch', {}, 'no-provider'],
    ['receiving from peer', 'receiving', { peer_id: 'b', bytes: 6 }, undefined],
  ])
  expect(kept.filter(({ isOver }) => !isOver).map(({ name }) => name)).toEqual(['fetch'])
})

test('a large swarm has a bounded number of spans', () => {
  const { phases, kept } = keep()
  phases.take({ phase: 'receiving', peers: Array.from({ length: 500 }, (_, index) => ({ peerId: String(index), bytes: 1 })) })
  expect(kept).toHaveLength(2 + MAX_TRACED_PEERS)
})

test.each([
  [null, {}, undefined],
  [null, { OTEL_EXPORTER_OTLP_ENDPOINT: '' }, undefined],
  ['http://a:4318', {}, 'http://a:4318/v1/traces'],
  ['http://a:4318/base/', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://b' }, 'http://a:4318/base/v1/traces'],
  [null, { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://b:4318' }, 'http://b:4318/v1/traces'],
  [null, { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://b', OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://c/t' }, 'http://c/t'],
  ['http://a', { OTEL_SDK_DISABLED: 'true' }, undefined],
])('the key %j and the variables %j lead to %j', (endpoint, env, address) => {
  expect(tracesAddress({ endpoint, env })).toBe(address)
})
