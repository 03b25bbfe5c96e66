import type { ConnectionEncrypter, MessageStream, PeerId, PrivateKey, SecureConnectionOptions, SecuredConnection, StreamMuxerFactory } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { byteStream } from '@libp2p/utils'
import { NarvikError } from '../../errors.ts'
import { DIAL_TIMEOUT_MS } from '../../limits.ts'
import type { FleetKeys } from '../fleet.ts'
import { bindingOf, checkProof, prove, PROOF_BYTES } from './proof.ts'
import { answerTls, dialTls } from './socket.ts'
import { TlsStream } from './stream.ts'

/** The same for every fleet and every key. */
export const TLS_PROTOCOL = '/narvik/tls/1.0.0'

export interface TlsComponents {
  readonly privateKey: PrivateKey
  readonly upgrader: { getStreamMuxers(): ReadonlyMap<string, StreamMuxerFactory> }
}

export interface TlsInit {
  /** Milliseconds for a whole handshake. */
  readonly timeoutMs?: number | undefined
}

/**
 * TLS 1.3 on the native socket of a connection, with the fleet key as its pre-shared key: it lets in the same hosts as the fleet's Noise, at a
 * quarter of the cost for each byte. `src/p2p/tls/SPEC.md` describes it.
 */
export function fleetTls(keys: FleetKeys, init: TlsInit = {}): (components: TlsComponents) => ConnectionEncrypter {
  return components => new FleetTls(components, keys, init)
}

class FleetTls implements ConnectionEncrypter {
  readonly protocol = TLS_PROTOCOL
  readonly #components: TlsComponents
  readonly #keys: FleetKeys
  readonly #timeoutMs: number

  constructor(components: TlsComponents, keys: FleetKeys, { timeoutMs = DIAL_TIMEOUT_MS }: TlsInit) {
    this.#components = components
    this.#keys = keys
    this.#timeoutMs = timeoutMs
  }

  secureOutbound(connection: MessageStream, options: SecureConnectionOptions = {}): Promise<SecuredConnection> {
    return this.#secure(connection, options, async () => {
      const channel = await dialTls(connection, this.#keys)
      const stream = new TlsStream(connection, channel)
      const binding = bindingOf(channel.secrets, channel.exported)
      // Who this host is, it tells only the host that it means.
      const answerer = await checkProof(await readProof(stream), { role: 'answerer', binding })
      checkExpected(answerer, options.remotePeer)
      stream.send(await prove(this.#components.privateKey, { role: 'dialler', binding, to: answerer }))
      return { stream, remotePeer: answerer }
    })
  }

  secureInbound(connection: MessageStream, options: SecureConnectionOptions = {}): Promise<SecuredConnection> {
    return this.#secure(connection, options, async () => {
      const { privateKey } = this.#components
      const channel = await answerTls(connection, this.#keys)
      const stream = new TlsStream(connection, channel)
      const binding = bindingOf(channel.secrets, channel.exported)
      stream.send(await prove(privateKey, { role: 'answerer', binding }))
      const dialler = await checkProof(await readProof(stream), { role: 'dialler', binding, to: peerIdFromPrivateKey(privateKey) })
      checkExpected(dialler, options.remotePeer)
      return { stream, remotePeer: dialler }
    })
  }

  /** Whatever ends the handshake early closes the connection, which in turn ends whatever the handshake waits for. */
  async #secure(connection: MessageStream, { signal, skipStreamMuxerNegotiation }: SecureConnectionOptions, handshake: () => Promise<Secured>): Promise<SecuredConnection> {
    let reason: Error | undefined
    const giveUp = (error: Error): void => {
      reason ??= error
      connection.abort(reason)
    }
    const onAbort = (): void => { giveUp(asError(signal?.reason)) }
    const timer = setTimeout(() => {
      giveUp(new NarvikError('peer-failed', `Cannot complete the handshake: found it unfinished after ${this.#timeoutMs} ms, needed it done`))
    }, this.#timeoutMs).unref()
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      signal?.throwIfAborted()
      const { stream, remotePeer } = await handshake()
      return { connection: stream, remotePeer, ...(skipStreamMuxerNegotiation !== true && { streamMuxer: this.#muxer() }) }
    } catch (error) {
      giveUp(asError(error))
      throw reason ?? error
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** The protocol's name says which one it is, so that the ends have nothing to negotiate. */
  #muxer(): StreamMuxerFactory {
    const muxer = this.#components.upgrader.getStreamMuxers().get('/yamux/1.0.0')
    if (muxer === undefined) throw new NarvikError('internal', 'Cannot speak TLS: found no yamux, needed it')
    return muxer
  }
}

interface Secured {
  readonly stream: TlsStream
  readonly remotePeer: PeerId
}

/** What the other end sends first; what comes behind it is left for the muxer. */
async function readProof(stream: TlsStream): Promise<Uint8Array> {
  const bytes = byteStream(stream)
  const proof = await bytes.read({ bytes: PROOF_BYTES })
  bytes.unwrap()
  return proof.subarray()
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

function checkExpected(found: PeerId, expected: PeerId | undefined): void {
  if (expected === undefined || found.equals(expected)) return
  throw new NarvikError('peer-failed', `Cannot speak to ${expected.toString()}: found ${found.toString()} in its place, needed it`)
}
