/** What the network and the hosts are like, besides their links. */
export interface Nature {
  /** Milliseconds of one step of virtual time: what happens within one happens at once. */
  readonly stepMs: number
  /** Part of a link's bytes that carries chunks; the rest are the headers of packets, records and frames. */
  readonly goodput: number
  /** Bytes that a message which is no chunk takes beside its own, the answers of TCP included. */
  readonly messageBytes: number
  /** Milliseconds that the queue before a full link holds what goes through. */
  readonly queueMs: number
  /** Round trips to connect to a host for the first time, and to open a session with it after that. */
  readonly connectTrips: number
  readonly openTrips: number
  /** Milliseconds of a look-up in the DHT, and until a provider that announces itself is found in it. */
  readonly lookUpMs: number
  readonly announceMs: number
  /** Milliseconds from the last chunk to a verified image. */
  readonly finishMs: number
  /** Bytes of a manifest beside 32 for each chunk, its metadata included. */
  readonly manifestBytes: number
}

/** The overhead of packets follows from their headers; the rest is estimated, and nothing is fitted to a run. */
export const ESTIMATED: Nature = {
  stepMs: 1,
  // Full packets of 1,514 bytes carry 1,448; TLS takes 22 of each 16 KiB, and the muxer and the protocol some 20 more.
  goodput: (1448 / 1514) * (1 - 42 / 16384),
  messageBytes: 190,
  queueMs: 50,
  connectTrips: 4,
  openTrips: 1.5,
  lookUpMs: 100,
  announceMs: 500,
  finishMs: 100,
  manifestBytes: 2048,
}

/** Nothing takes anything but the links and the way. */
export const IDEAL: Nature = {
  ...ESTIMATED, goodput: 1, messageBytes: 0, queueMs: 0, connectTrips: 1, lookUpMs: 20, announceMs: 100, finishMs: 0, manifestBytes: 0,
}
