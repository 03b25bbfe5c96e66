import { randomBytes } from 'node:crypto'
import { Socket } from 'node:net'
import tls, { type ConnectionOptions, type TLSSocket, type TLSSocketOptions } from 'node:tls'
import type { MessageStream } from '@libp2p/interface'
import { messageOf, NarvikError } from '../../errors.ts'
import { TLS_BUFFER_BYTES } from '../../limits.ts'
import type { FleetKeys } from '../fleet.ts'
import { type FleetSecrets, hintFor, secretsOf, secretsOfHint } from './keys.ts'

/** A TLS channel whose two ends have the same fleet key; who they are is still to be proven. */
export interface Channel {
  readonly socket: TLSSocket
  /** The socket below it. */
  readonly native: Socket
  /** The secrets of the key that the ends share. */
  readonly secrets: FleetSecrets
  /** What nobody but the ends of this channel has. */
  readonly exported: Uint8Array
}

/** Takes the native socket of a connection away from libp2p and does a dialler's handshake on it. */
export async function dialTls(connection: MessageStream, keys: FleetKeys): Promise<Channel> {
  const secrets = secretsOf(keys.dial)
  const native = await takeSocket(connection)
  const options: ConnectionOptions & Buffered = {
    ...newOptions(),
    socket: native,
    pskCallback: () => ({ psk: secrets.psk, identity: hintFor(secrets) }),
    // Who has the key needs no certificate, and is not asked for one. A certificate of an unknown issuer is refused before this is called; one of a known issuer is here.
    checkServerIdentity: () => new Error('found a certificate, needed the fleet key'),
  }
  const socket = tls.connect(options)
  await untilSecure(socket, 'secureConnect')
  return { socket, native, secrets, exported: exportFrom(socket) }
}

/** Takes the native socket of a connection away from libp2p and does an answerer's handshake on it. */
export async function answerTls(connection: MessageStream, keys: FleetKeys): Promise<Channel> {
  let secrets: FleetSecrets | undefined
  const options: TLSSocketOptions & Buffered & { pskCallback(socket: TLSSocket, hint: string): Uint8Array } = {
    ...newOptions(),
    isServer: true,
    pskCallback: (_socket, hint) => {
      secrets = secretsOfHint(keys, hint)
      // A key of no fleet fails as a wrong one does: a stranger can't tell the two apart.
      return secrets?.psk ?? randomBytes(32)
    },
  }
  const native = await takeSocket(connection)
  const socket = new tls.TLSSocket(native, options)
  await untilSecure(socket, 'secure')
  // OpenSSL is done with no handshake for which it has asked for no key, as there is no certificate here to take the key's place: this tells the type so.
  if (secrets === undefined) throw refused('found no fleet key')
  return { socket, native, secrets, exported: exportFrom(socket) }
}

/** Node hands it to the socket's two streams, though its types don't say so. */
interface Buffered { readonly highWaterMark: number }

/** A context for each connection: what one has been told can't be used to go on with another, past the fleet key. */
function newOptions(): Buffered & Pick<TLSSocketOptions, 'secureContext' | 'minVersion' | 'maxVersion' | 'ciphers'> {
  const version = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const
  return { ...version, secureContext: tls.createSecureContext(version), highWaterMark: TLS_BUFFER_BYTES }
}

/**
 * The socket below a connection, with the bytes put back that libp2p has read and not used; libp2p gets no more of them. That it is closed or
 * breaks still reaches the connection, and closing or aborting the connection still closes it.
 */
async function takeSocket(connection: MessageStream): Promise<Socket> {
  const { socket } = connection as { socket?: unknown }
  if (!(socket instanceof Socket)) throw new NarvikError('internal', 'Cannot speak TLS: found a connection over no socket of this system, needed one')
  const early = connection.status === 'open' ? await readEarly(connection) : undefined
  if (socket.destroyed || connection.status !== 'open') throw new NarvikError('peer-failed', 'Cannot speak TLS: found the connection closed, needed it open')
  socket.removeAllListeners('data')
  socket.pause()
  if (early !== undefined) socket.unshift(early)
  return socket
}

/** What came with the end of the negotiation. No turn of the event loop passes, so that nothing comes after it. */
async function readEarly(connection: MessageStream): Promise<Uint8Array | undefined> {
  if (connection.readBufferLength === 0) return undefined
  const { promise, resolve } = Promise.withResolvers<Uint8Array>()
  connection.addEventListener('message', ({ data }) => { resolve(data.subarray()) }, { once: true })
  return promise
}

function exportFrom(socket: TLSSocket): Uint8Array {
  return socket.exportKeyingMaterial(32, 'EXPORTER-narvik-tls-1', Buffer.alloc(0))
}

async function untilSecure(socket: TLSSocket, event: 'secure' | 'secureConnect'): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>()
  const onError = (error: Error): void => { reject(refused(`found ${reasonOf(error)}`)) }
  const onClose = (): void => { reject(refused('found the connection closed')) }
  socket.once(event, () => { resolve(undefined) })
  socket.on('error', onError)
  socket.on('close', onClose)
  try {
    await promise
  } finally {
    socket.off('close', onClose)
    // The listener of errors stays until the stream has put its own: an error without one ends the process.
  }
}

/** What OpenSSL says, without the places in its source where it says it. */
function reasonOf(error: Error & { reason?: unknown }): string {
  return typeof error.reason === 'string' ? error.reason : messageOf(error)
}

function refused(found: string): NarvikError {
  return new NarvikError('peer-failed', `Cannot complete the handshake: ${found}, needed a peer with the same fleet key`)
}
