import type { Stream } from '@libp2p/interface'
import { isNarvikError, messageOf } from '../../errors.ts'
import { HEADER_TIMEOUT_MS, MAX_SWARM_SESSIONS } from '../../limits.ts'
import { readHeader, sendHeader } from '../header.ts'
import type { ChunkHolding, ChunkSource, StreamHandler } from '../protocol.ts'
import type { ServeComponents, ServeInit } from '../serve.ts'
import { StreamReader } from '../stream-reader.ts'
import { Watchdog } from '../watchdog.ts'
import { chunksHello } from './messages.ts'
import { ServedSession } from './served-session.ts'
import { Swarms } from './swarms.ts'
import type { Turns } from './turns.ts'

export interface ChunksHandlerComponents extends ServeComponents {
  readonly source: ChunkSource
  readonly turns: Turns
}

/** Serves `/narvik/chunks/1.0.0`: chunks of an image, proven ones only, for as long as the asker stays. */
export function chunksHandler({ source, turns, logger, stopping, trafficOf }: ChunksHandlerComponents, init: ServeInit = {}): StreamHandler {
  const swarms = new Swarms()
  return async (stream, { remotePeer }) => {
    const reader = new StreamReader(stream)
    const watchdog = new Watchdog(stream, { signal: stopping, stallMs: init.stallMs })
    const peerId = remotePeer.toString()
    const traffic = trafficOf(peerId)
    try {
      const hello = await watchdog.wait(readHeader(reader, chunksHello), 'whole hello', init.headerTimeoutMs ?? HEADER_TIMEOUT_MS)
      const holding = source.hold(hello.narHash, hello.manifestDigest)
      const swarm = holding && swarms.of(hello.narHash, hello.manifestDigest, holding)
      if (holding === undefined || swarm === undefined || holding.gone.aborted) await refuse(stream, watchdog, { status: 'not-found' })
      else if (swarm.size >= MAX_SWARM_SESSIONS) await refuse(stream, watchdog, { status: 'busy', peers: swarm.others(peerId) })
      else await serveSession(new ServedSession({ stream, reader, watchdog, holding, swarm, turns, peerId, traffic }), holding, peerId)
      await watchdog.wait(stream.close({ signal: watchdog.signal }), 'room for the last bytes')
    } catch (error) {
      const reason = watchdog.reason ?? error
      traffic.breakOff?.()
      stream.abort(reason instanceof Error ? reason : new Error(messageOf(reason)))
      const level = isNarvikError(reason) && !isNarvikError(reason, 'peer-failed', 'interrupted') ? 'warn' : 'debug'
      logger[level]('gave up serving a peer', { peerId, protocol: stream.protocol, reason: messageOf(reason) })
    } finally {
      watchdog.stop()
    }
  }
}

async function serveSession(session: ServedSession, holding: ChunkHolding, peerId: string): Promise<void> {
  holding.met(peerId)
  try {
    await session.run()
  } finally {
    session.close()
  }
}

async function refuse(stream: Stream, watchdog: Watchdog, reply: { readonly status: 'not-found' | 'busy', readonly peers?: readonly string[] }): Promise<void> {
  await sendHeader(stream, { version: 1, ...reply }, watchdog)
}

