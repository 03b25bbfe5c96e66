import { isNarvikError, NarvikError } from '../errors.ts'
import { Blake3 } from '../image/blake3.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { isPolicyRefusal, type Evidence, type PeerShare } from '../image/verdict.ts'
import { Layout } from '../nar/layout.ts'
import { readRange } from '../nar/read-range.ts'
import type { Proof } from '../verify/pipeline.ts'
import type { Attempt } from './attempt.ts'
import type { TaskContext } from './context.ts'
import type { Word } from './introduction.ts'
import { bytesPerPeer, type Run } from './receive-progress.ts'
import type { SwarmAttempt } from './swarm/attempt.ts'

/** What is kept of a rejected attempt until the true bytes are known. */
interface Suspect {
  readonly runs: readonly Run[]
  readonly voucher: string | null
  readonly manifestDigest: string
}

/**
 * Finds out who sent wrong bytes. A single sender of a rejected image is proven to lie at once; among several, the
 * bytes of a later attempt that passes tell who it was. A tree that differs from what was received blames the disk.
 */
export class Blame {
  readonly liars = new Set<string>()
  /** Whether what arrived was damaged on this host: no provider can help then. */
  isHostAtFault = false
  /** Whether those who sent the bytes that were rejected last did nothing wrong, so that they may send them again. */
  areSendersCleared = false
  readonly #context: TaskContext
  readonly #narHash: NarHash
  readonly #suspects: Suspect[] = []
  /** Manifests that the NAR hash has contradicted. */
  readonly #condemned = new Set<string>()

  constructor(context: TaskContext, narHash: NarHash) {
    this.#context = context
    this.#narHash = narHash
  }

  /** Whether somebody lied of whom it is not known yet who it was. */
  get isUndecided(): boolean {
    return this.#suspects.length > 0
  }

  /** Weighs one attempt by its proof; bans whoever is shown to lie and says so in the evidence. */
  async judge(attempt: Attempt | SwarmAttempt, proof: Proof): Promise<Evidence> {
    // Where only the policy failed it, the bytes are as good as those of an image that passed.
    const verdict = isPolicyRefusal(proof.verdict) ? 'pass' : proof.verdict.verdict
    if (attempt.kind === 'chunks') return this.#judgeSwarm(attempt, proof, verdict)
    const notes = verdict === 'pass' ? await this.#clear(attempt) : await this.#accuse(attempt, proof)
    return { peers: this.#shares(attempt, verdict), notes }
  }

  /**
   * Refuses a manifest that was contradicted before, and bans whoever vouches for it.
   * @throws NarvikError `invalid-manifest`.
   */
  checkWord({ manifestDigest, voucher }: Word): void {
    if (!this.#condemned.has(manifestDigest)) return
    if (voucher !== null) this.#ban(voucher, `it vouches for manifest ${manifestDigest}, which the NAR hash contradicts`)
    throw new NarvikError('invalid-manifest', `Cannot take manifest ${manifestDigest}: found that the NAR hash contradicts it, needed another`)
  }

  /** Each chunk had its hash as it came: where the NAR hash is another, either the manifest lied or this host damaged what it had. */
  async #judgeSwarm(attempt: SwarmAttempt, proof: Proof, verdict: 'pass' | 'fail'): Promise<Evidence> {
    const notes = verdict === 'pass' ? await this.#clear({ layout: attempt.layout, manifestDigest: attempt.manifestDigest, contradiction: undefined }) : await this.#accuseManifest(attempt, proof)
    const known = attempt.shares(verdict)
    const peers = known.map(share => this.liars.has(share.peerId) ? { ...share, outcome: 'lied' as const } : share)
    const others = [...this.liars].filter(peerId => !known.some(share => share.peerId === peerId))
    return { peers: [...peers, ...others.map(peerId => ({ peerId, bytes: 0, outcome: 'lied' as const, detail: null }))], sources: attempt.sources, notes }
  }

  async #accuseManifest(attempt: SwarmAttempt, { measured }: Proof): Promise<string[]> {
    const { voucher, manifestDigest, contradiction } = attempt
    const isOtherManifest = measured !== null && measured.narHash.equals(this.#narHash) && measured.manifestDigest !== manifestDigest
    const wrong = contradiction === undefined && !isOtherManifest ? await attempt.recheck() : 0
    this.isHostAtFault = wrong > 0
    if (wrong > 0) return [`${wrong} chunks on disk are not what was received: the disk or the memory of this host is to blame`]
    this.#condemned.add(manifestDigest)
    if (isOtherManifest) return [this.#banVoucher(voucher, manifestDigest, measured.manifestDigest)]
    const why = contradiction?.detail ?? `every chunk has the hash that manifest ${manifestDigest} says, and together they do not give ${this.#narHash.toSri()}`
    if (voucher === null) return [`The manifest lied: ${why}; nobody vouched for it`]
    return [`The manifest lied: ${why}`, this.#ban(voucher, `it vouched for manifest ${manifestDigest}`)]
  }

  async #accuse(attempt: Attempt, { measured }: Proof): Promise<string[]> {
    const { voucher, runs, contradiction, manifestDigest } = attempt
    // The bytes are those of the image, whoever sent them: only the manifest is not.
    this.areSendersCleared = measured?.narHash.equals(this.#narHash) === true && measured.manifestDigest !== manifestDigest
    if (this.areSendersCleared && measured !== null) return [this.#banVoucher(voucher, manifestDigest, measured.manifestDigest)]
    const damaged = contradiction === undefined && await this.#differing(attempt, runs).then(all => all.length > 0)
    this.isHostAtFault = damaged
    if (damaged) return ['The tree on disk differs from what was received: the disk or the memory of this host is to blame']
    const involved = new Set([...voucher === null ? [] : [voucher], ...attempt.peers, ...(contradiction === undefined ? [] : [contradiction.peerId])])
    const [only] = involved
    if (involved.size === 1 && only !== undefined) {
      this.#ban(only, `its bytes do not give ${this.#narHash.toSri()}`)
      return [contradiction?.detail ?? `All bytes and the manifest came from ${only}`]
    }
    this.#suspects.push({ runs, voucher, manifestDigest })
    return [...(contradiction === undefined ? [] : [contradiction.detail]), `One of ${[...involved].join(', ')} lied; which one is not known yet`]
  }

  /** The tree is proven now: whoever sent something else before, lied. */
  async #clear(attempt: Pick<Attempt, 'layout' | 'manifestDigest' | 'contradiction'>): Promise<string[]> {
    const notes: string[] = []
    if (attempt.contradiction !== undefined) notes.push(this.#ban(attempt.contradiction.peerId, attempt.contradiction.detail))
    for (const { runs, voucher, manifestDigest } of this.#suspects) {
      if (manifestDigest !== attempt.manifestDigest) notes.push(this.#banVoucher(voucher, manifestDigest, attempt.manifestDigest))
      const comparable = runs.filter(run => run.offset + run.length <= attempt.layout.narSize)
      for (const { peerId, offset, length } of await this.#differing(attempt, comparable)) {
        if (!this.liars.has(peerId)) notes.push(this.#ban(peerId, `its bytes ${offset} to ${offset + length} were not those of the image`))
      }
    }
    return notes
  }

  /** The runs whose bytes in the tree on disk are not those that were received. */
  async #differing({ layout }: { layout: Layout }, runs: readonly Run[]): Promise<Run[]> {
    const tree = this.#context.content.quarantineTree(this.#narHash)
    const different: Run[] = []
    for (const run of runs) {
      if (await digestOf(tree, layout, run) !== run.digest) different.push(run)
    }
    return different
  }

  #banVoucher(voucher: string | null, manifestDigest: string, trueOne: string): string {
    if (voucher === null) return `Nobody vouched for manifest ${manifestDigest}; the true one is ${trueOne}`
    return this.#ban(voucher, `it vouched for manifest ${manifestDigest}, the true one is ${trueOne}`)
  }

  #ban(peerId: string, why: string): string {
    this.liars.add(peerId)
    this.#context.node.ban(peerId, this.#context.settings.banMs, why)
    return `${peerId} lied: ${why}`
  }

  #shares(attempt: Attempt, verdict: 'pass' | 'fail'): PeerShare[] {
    const bytes = bytesPerPeer(attempt.runs)
    for (const peerId of this.liars) bytes.set(peerId, bytes.get(peerId) ?? 0)
    return Array.from(bytes, ([peerId, sent]) => ({ peerId, bytes: sent, outcome: this.#outcome(peerId, verdict), detail: null }))
  }

  #outcome(peerId: string, verdict: 'pass' | 'fail'): PeerShare['outcome'] {
    if (this.liars.has(peerId)) return 'lied'
    return verdict === 'pass' ? 'used' : 'discarded'
  }
}

/** The digest of a range of the tree as it is on disk; undefined where a file is gone or of another size. */
async function digestOf(tree: string, layout: Layout, { offset, length }: Run): Promise<string | undefined> {
  const digest = new Blake3()
  try {
    for await (const bytes of readRange(tree, layout, offset, length)) digest.update(bytes)
    return digest.hex()
  } catch (error) {
    if (isNarvikError(error, 'changed-while-reading', 'not-found')) return undefined
    throw error
  }
}
