import type { Stream } from '@libp2p/interface'
import type { Watchdog } from './watchdog.ts'

/**
 * Sends bytes and waits until the stream takes more. The bytes belong to the stream from then on: it queues them by
 * reference, so a buffer must never be used again.
 */
export async function send(stream: Stream, bytes: Uint8Array, watchdog: Watchdog): Promise<void> {
  if (!stream.send(bytes)) await watchdog.wait(drained(stream), 'room for more bytes')
}

/** Resolves at the next 'drain' event: libp2p's own onDrain() works only once a stream. */
async function drained(stream: Stream): Promise<void> {
  if (stream.writeStatus !== 'writable') throw new Error(`the stream is not writable but ${stream.writeStatus}`)
  const { promise, resolve, reject } = Promise.withResolvers<undefined>()
  const onDrain = (): void => { resolve(undefined) }
  const onClose = ({ error }: { error?: Error }): void => { reject(error ?? new Error('the stream was closed before it took all bytes')) }
  stream.addEventListener('drain', onDrain)
  stream.addEventListener('close', onClose)
  try {
    await promise
  } finally {
    stream.removeEventListener('drain', onDrain)
    stream.removeEventListener('close', onClose)
  }
}
