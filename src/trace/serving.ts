import type { Served } from '../p2p/protocol.ts'
import type { Spans } from './spans.ts'

/** Makes a trace of an exchange that a peer has asked for, when it is over. Peers are sent nothing of it. */
export function traceServing(spans: Spans, { peerId, protocol, about, startedAt, sent, code }: Served): void {
  const span = spans.start('serve', {
    isServing: true, at: startedAt, facts: { peer_id: peerId, protocol, sent_bytes: sent, ...about !== undefined && { nar_hash: about.toSri() } },
  })
  span.end(code === undefined ? {} : { code })
}
