import { yamux, type YamuxMuxerInit } from '@libp2p/yamux'
import { copied } from './freeing.ts'

/** What a stream of the muxer has in plain sight, but not in its exported type. */
interface YamuxStreamInside {
  readonly state: number
  /** Bytes that may be on their way at once, and those of them that may still come. */
  readonly recvWindow: number
  readonly recvWindowCapacity: number
  sendWindowUpdate(): void
}

interface YamuxInside {
  _newStream: (...args: unknown[]) => YamuxStreamInside
  readonly decoder: {
    /** What has come and is of no whole frame yet. */
    readonly buffer: { readonly byteLength: number, sublist(start: number, end: number): Iterable<Uint8Array> }
    /** Takes the next frame out of the buffer; undefined where it is not whole. */
    readFrame: () => unknown
  }
}

/** A stream in this state has said all that it has to say when it opens. */
const ESTABLISHED = 3
/** Bytes of the header of a frame. */
const HEADER_BYTES = 12
/** What part of a window has to be used up before the sender is told that it may go on. */
const USED_UP = 1 / 4

/**
 * Yamux that gives the sender room when a quarter of a window is used up: left to itself it does so after each frame, and among many streams of
 * small messages every other packet is one that says so. And it says of the headers of frames that they are copied, as the readers of streams do
 * of the rest.
 */
export function thriftyYamux(init: YamuxMuxerInit): ReturnType<typeof yamux> {
  const create = yamux(init)
  return () => {
    const factory = create()
    const createStreamMuxer = factory.createStreamMuxer.bind(factory)
    factory.createStreamMuxer = connection => {
      const muxer = createStreamMuxer(connection)
      const inside = muxer as unknown as YamuxInside
      saveWindowUpdates(inside)
      freeHeaders(inside)
      return muxer
    }
    return factory
  }
}

function saveWindowUpdates(muxer: YamuxInside): void {
  const newStream = muxer._newStream.bind(muxer)
  muxer._newStream = (...args) => {
    const stream = newStream(...args)
    const update = stream.sendWindowUpdate.bind(stream)
    stream.sendWindowUpdate = () => {
      if (stream.state === ESTABLISHED && stream.recvWindow - stream.recvWindowCapacity < stream.recvWindow * USED_UP) return
      update()
    }
    return stream
  }
}

/** A header that nobody counts would keep the memory of all that came with it. */
function freeHeaders({ decoder }: YamuxInside): void {
  const readFrame = decoder.readFrame.bind(decoder)
  decoder.readFrame = () => {
    const header = decoder.buffer.sublist(0, Math.min(HEADER_BYTES, decoder.buffer.byteLength))
    const frame = readFrame()
    if (frame !== undefined) for (const part of header) copied(part)
    return frame
  }
}
