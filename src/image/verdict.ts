/** What one signature of an image is worth on this host. */
export interface SignatureFinding {
  /** As it was given. */
  readonly text: string
  /** null where the text is no signature. */
  readonly keyName: string | null
  /** `good`: a trusted key made it; `bad`: a trusted key has its name and did not make it; `unknown`: no trusted key has its name; `malformed`: it is no signature. */
  readonly verdict: 'good' | 'bad' | 'unknown' | 'malformed'
  /** The public key that made a good one. */
  readonly madeBy: string | null
}

/** The outcome of one stage of the verify pipeline, with what it saw. */
export interface StageResult {
  /** `shape`, `size`, `nar-hash`, `metadata`, `signatures`, `registration`, `nix-store` */
  readonly stage: string
  readonly verdict: 'pass' | 'fail' | 'skipped'
  /** One sentence for a person. */
  readonly detail: string
  readonly expected?: string
  readonly found?: string
  readonly milliseconds: number
  /** Of the stage `signatures`, where there are any. */
  readonly signatures?: readonly SignatureFinding[]
}

/** What the verify pipeline says of a tree; `reason` is the detail of the first stage that failed. */
export interface Verdict {
  readonly verdict: 'pass' | 'fail'
  readonly stages: readonly StageResult[]
  readonly reason: string | null
}

/** What one peer sent of one image, for the evidence. */
export interface PeerShare {
  readonly peerId: string
  /** Bytes of the NAR that were taken from it. */
  readonly bytes: number
  /** Bytes that came from it in vain, in a swarm: wrong, or here already. */
  readonly wasted?: number
  /** What became of it: `used`, `lied` (its bytes were proven wrong), `failed` (it broke off), `discarded`. */
  readonly outcome: 'used' | 'lied' | 'failed' | 'discarded'
  readonly detail: string | null
}

/** Bytes of one image that no peer sent for its use. */
export interface Sources {
  /** What other images of this host had, and what this one has in several places but once. */
  readonly reused: readonly { readonly narHash: string, readonly bytes: number }[]
  /** Runs of zeros, which nobody sends or writes. */
  readonly zeros: number
  /** What came and was of no use: wrong, or here already. */
  readonly wasted: number
}

/** The evidence that goes with a change of state. */
export interface Evidence {
  readonly verdict?: Verdict
  readonly peers?: readonly PeerShare[]
  /** Where the rest came from, of an image that was received in chunks. */
  readonly sources?: Sources
  /** Bytes of the chunks that were wrong on disk, where `peers` and `sources` speak of these alone. */
  readonly repaired?: number
  readonly notes?: readonly string[]
  /** Code of the error that ended a try. */
  readonly error?: string
}

/** Whether it was the policy of this host alone that failed an image: nothing was found wrong with its bytes. */
export function isPolicyRefusal({ stages }: Pick<Verdict, 'stages'>): boolean {
  const failed = stages.filter(({ verdict }) => verdict === 'fail')
  return failed.length > 0 && failed.every(({ stage }) => stage === 'signatures')
}
