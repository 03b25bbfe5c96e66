import type { TLSSocket } from 'node:tls'
import { TLS_BUFFER_BYTES } from '../../limits.ts'
import { Buffers } from '../buffers.ts'
import { copied } from '../freeing.ts'

/** For all connections. */
const shared = new Buffers({ bytes: TLS_BUFFER_BYTES / 2, kept: 16 })

/**
 * Gathers what goes into a TLS socket: the parts of a frame, and the frames of a moment, go into one run of TLS records and one call to the system.
 * What it has taken is copied: the memory is free for something else when the turn is over.
 */
export class TlsWriter {
  readonly #socket: Pick<TLSSocket, 'write'>
  readonly #onRoom: () => void
  readonly #buffers: Buffers
  /** It is filled while another one is written. */
  #filling: Buffer | undefined
  #filled = 0
  #isWriting = false
  #isDue = false
  /** Whether somebody has been told to wait. */
  #isAwaited = false
  readonly #taken: Uint8Array[] = []

  /** `onRoom` is called when there is room again after `add` had none. */
  constructor(socket: Pick<TLSSocket, 'write'>, onRoom: () => void, buffers = shared) {
    this.#socket = socket
    this.#buffers = buffers
    this.#onRoom = onRoom
  }

  /** Takes as many of the bytes as it has room for, in their order; returns how many. */
  add(parts: Iterable<Uint8Array>): number {
    let bytes = 0
    for (const part of parts) {
      const count = this.#copy(part)
      bytes += count
      if (count === part.byteLength) continue
      this.#isAwaited = true
      break
    }
    this.#endTurnSoon()
    return bytes
  }

  /** Hands what waits to the socket, which writes it in its order. */
  flush(): void {
    const buffer = this.#filling
    if (buffer === undefined) return
    const bytes = buffer.subarray(0, this.#filled)
    this.#filling = undefined
    this.#filled = 0
    this.#isWriting = true
    this.#socket.write(bytes, error => {
      // After an error nobody knows who still reads it.
      if (error === undefined || error === null) this.#buffers.giveBack(buffer)
      this.#onWritten()
    })
  }

  #onWritten(): void {
    this.#isWriting = false
    this.flush()
    if (!this.#isAwaited) return
    this.#isAwaited = false
    this.#onRoom()
  }

  #copy(part: Uint8Array): number {
    let done = 0
    while (done < part.byteLength) {
      this.#filling ??= this.#buffers.take()
      const piece = part.subarray(done, done + this.#filling.length - this.#filled)
      if (piece.byteLength === 0) break
      this.#filling.set(piece, this.#filled)
      this.#taken.push(piece)
      this.#filled += piece.byteLength
      done += piece.byteLength
      if (this.#filled === this.#filling.length && !this.#isWriting) this.flush()
    }
    return done
  }

  #endTurnSoon(): void {
    if (this.#isDue) return
    this.#isDue = true
    process.nextTick(() => {
      this.#isDue = false
      // Not before: those above still count the bytes of what they have handed down.
      for (const piece of this.#taken.splice(0)) copied(piece)
      if (!this.#isWriting) this.flush()
    })
  }
}
