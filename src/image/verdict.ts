/** The outcome of one stage of the verify pipeline, with what it saw. */
export interface StageResult {
  /** `shape`, `size`, `nar-hash`, `metadata`, … */
  readonly stage: string
  readonly verdict: 'pass' | 'fail' | 'skipped'
  /** One sentence for a person. */
  readonly detail: string
  readonly expected?: string
  readonly found?: string
  readonly milliseconds: number
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
  /** What became of it: `used`, `lied` (its bytes were proven wrong), `failed` (it broke off), `discarded`. */
  readonly outcome: 'used' | 'lied' | 'failed' | 'discarded'
  readonly detail: string | null
}

/** The evidence that goes with a change of state. */
export interface Evidence {
  readonly verdict?: Verdict
  readonly peers?: readonly PeerShare[]
  readonly notes?: readonly string[]
}
