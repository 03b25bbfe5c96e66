import type { Stream } from '@libp2p/interface'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { onTestFinished } from 'vitest'
import type { OpenStream, StreamHandler, StreamOpener, Traffic } from '../../src/p2p/protocol.ts'
import { muxer } from '../../src/p2p/stack.ts'

export interface Pair {
  /** The stream of the end that opened it. */
  readonly near: Stream
  readonly far: Stream
}

type MuxerFactory = ReturnType<typeof muxer>

/** Two ends of a stream in one process, through the muxer and the windows that a node uses. */
export async function streamPair(): Promise<Pair> {
  const [outbound, inbound] = multiaddrConnectionPair({ delay: 0, capacity: 64 })
  const factory: MuxerFactory = muxer()
  const nearMuxer = factory.createStreamMuxer(outbound)
  const farMuxer = factory.createStreamMuxer(inbound)
  onTestFinished(() => {
    outbound.abort(new Error('the test is over'))
    inbound.abort(new Error('the test is over'))
  })
  const { promise, resolve } = Promise.withResolvers<Stream>()
  farMuxer.addEventListener('stream', ({ detail }) => { resolve(detail) })
  const near = await nearMuxer.createStream()
  return { near, far: await promise }
}

export interface Ends {
  /** For a client; each call opens one stream to `server`. */
  readonly opener: StreamOpener
  readonly streams: Pair[]
  /** The books of the asking end. */
  readonly traffic: Traffic
}

/** What a client needs of a node, with `server` at the other end of each stream. */
export function connectTo(server: (stream: Stream) => void | Promise<void>, { stopping }: { stopping?: AbortSignal } = {}): Ends {
  const streams: Pair[] = []
  const traffic = { received: 0, sent: 0 }
  const opener: StreamOpener = {
    async open(_peerId, _protocol, { signal }): Promise<OpenStream> {
      const pair = await streamPair()
      streams.push(pair)
      void server(pair.far)
      const signals = [signal, stopping].filter(one => one !== undefined)
      return { stream: pair.near, signal: AbortSignal.any(signals), traffic }
    },
  }
  return { opener, streams, traffic }
}

/** A server made of a handler. */
export function served(handler: StreamHandler, peerId = 'asker'): (stream: Stream) => Promise<void> {
  return stream => handler(stream, { remotePeer: { toString: () => peerId } as never })
}
