import type { Stream } from '@libp2p/interface'
import { HEADER_TIMEOUT_MS, MAX_SWARM_SESSIONS } from '../../limits.ts'
import { readHeader, sendHeader } from '../header.ts'
import type { ChunkHolding, ChunkSource, StreamHandler } from '../protocol.ts'
import { attend, type ServeComponents, type ServeInit } from '../serve.ts'
import type { Watchdog } from '../watchdog.ts'
import { chunksHello } from './messages.ts'
import { ServedSession } from './served-session.ts'
import { Swarms } from './swarms.ts'
import type { Turns } from './turns.ts'

export interface ChunksHandlerComponents extends ServeComponents {
  readonly source: ChunkSource
  readonly turns: Turns
}

/** Serves `/narvik/chunks/1.0.0`: chunks of an image, proven ones only, for as long as the asker stays. */
export function chunksHandler({ source, turns, ...components }: ChunksHandlerComponents, { stallMs, headerTimeoutMs = HEADER_TIMEOUT_MS }: ServeInit = {}): StreamHandler {
  const swarms = new Swarms()
  return attend(components, { stallMs }, async ({ stream, reader, watchdog, traffic, peerId, concerns }) => {
    const hello = await watchdog.wait(readHeader(reader, chunksHello), 'whole hello', headerTimeoutMs)
    concerns(hello.narHash)
    traffic.sends?.(hello.narHash)
    const holding = source.hold(hello.narHash, hello.manifestDigest)
    const swarm = holding && swarms.of(hello.narHash, hello.manifestDigest, holding)
    if (holding === undefined || swarm === undefined || holding.gone.aborted) await refuse(stream, watchdog, { status: 'not-found' })
    else if (swarm.size >= MAX_SWARM_SESSIONS) await refuse(stream, watchdog, { status: 'busy', peers: swarm.others(peerId) })
    else await serveSession(new ServedSession({ stream, reader, watchdog, holding, swarm, turns, peerId, traffic }), holding, peerId)
  })
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

