import type { TLSSocket } from 'node:tls'
import type { AbortOptions, MessageStream } from '@libp2p/interface'
import { AbstractMessageStream, type SendResult } from '@libp2p/utils'
import { freeOnceCopied } from '../freeing.ts'
import type { Channel } from './socket.ts'
import { TlsWriter } from './writer.ts'

/** A list of buffers as libp2p's streams hand it to each other. */
type Buffers = Parameters<AbstractMessageStream['sendData']>[0]

/** What libp2p sees of a TLS socket that lies on one of its connections, whose life it shares. */
export class TlsStream extends AbstractMessageStream {
  readonly #connection: MessageStream
  readonly #socket: TLSSocket
  readonly #writer: TlsWriter
  #dispatching = false

  constructor(connection: MessageStream, { native, socket }: Pick<Channel, 'native' | 'socket'>) {
    super({
      log: connection.log.newScope('tls'),
      direction: connection.direction,
      inactivityTimeout: connection.inactivityTimeout,
      maxReadBufferLength: connection.maxReadBufferLength,
    })
    this.#connection = connection
    this.#socket = socket
    this.#writer = new TlsWriter(socket, () => { this.safeDispatchEvent('drain') })
    // Closing the connection has to wait for what TLS has not written yet.
    native.destroySoon = () => {
      this.#writer.flush()
      for (const part of this.writeBuffer) socket.write(part)
      this.writeBuffer.consume(this.writeBuffer.byteLength)
      socket.destroySoon()
    }
    socket.on('data', (bytes: Buffer) => { this.#onBytes(bytes) })
    socket.on('error', (error: Error) => { this.abort(error) })
    // A socket that no tls.Server has made tells of a forged record in this way alone, and goes on.
    socket.on('_tlsError', (error: Error) => { this.abort(error) })
    socket.once('end', () => { this.onTransportClosed() })
    // It closes right after the connection and, unlike that, knows whether TLS is the reason.
    socket.once('close', () => { this.onTransportClosed() })
    connection.addEventListener('close', ({ error, local }) => {
      if (error === undefined) return
      if (local === true) this.abort(error)
      else this.onRemoteReset()
    })
  }

  override sendData(data: Buffers): SendResult {
    const sentBytes = this.#writer.add(data)
    return { sentBytes, canSendMore: sentBytes === data.byteLength }
  }

  override sendReset(error: Error): void {
    // What was said before goes before.
    this.#writer.flush()
    this.#connection.abort(error)
  }

  override sendPause(): void {
    this.#socket.pause()
  }

  override sendResume(): void {
    this.#socket.resume()
  }

  override async close(options?: AbortOptions): Promise<void> {
    await this.#connection.close(options)
  }

  /** A record holds 16 KiB and the system gives several at once: they are passed on together. */
  #onBytes(bytes: Buffer): void {
    if (this.readStatus === 'closing' || this.readStatus === 'closed') return
    freeOnceCopied(bytes)
    this.readBuffer.append(bytes)
    if (this.#dispatching) return
    this.#dispatching = true
    process.nextTick(() => {
      this.#dispatching = false
      this.dispatchReadBuffer()
    })
  }
}
