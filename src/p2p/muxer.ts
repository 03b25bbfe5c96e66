import { yamux, type YamuxMuxerInit } from '@libp2p/yamux'

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
}

/** A stream in this state has said all that it has to say when it opens. */
const ESTABLISHED = 3
/** What part of a window has to be used up before the sender is told that it may go on. */
const USED_UP = 1 / 4

/**
 * Yamux that gives the sender room when a quarter of a window is used up. Left to itself it does so after each frame, and among many streams of
 * small messages every other packet is one that says so.
 */
export function thriftyYamux(init: YamuxMuxerInit): ReturnType<typeof yamux> {
  const create = yamux(init)
  return () => {
    const factory = create()
    const createStreamMuxer = factory.createStreamMuxer.bind(factory)
    factory.createStreamMuxer = connection => {
      const muxer = createStreamMuxer(connection)
      saveWindowUpdates(muxer as unknown as YamuxInside)
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
