import { NarvikError } from '../errors.ts'
import { imageName } from '../image/metadata.ts'
import type { ImageMetadata } from '../image/metadata.ts'
import type { NarHash } from '../image/nar-hash.ts'
import type { RefKind } from '../image/ref.ts'
import { nextState } from '../image/states.ts'
import type { ImageEvent, ImageState } from '../image/states.ts'
import type { Evidence } from '../image/verdict.ts'
import type { Voucher } from '../image/voucher.ts'
import { fromSqliteError, openDatabase, type Database } from './database.ts'
import { ASKED_FOR, IMPORTED, type ImagePlace, type ImageRow, type ImageSource, type JournalEntry, type JournalEvent, type Registration } from './image-row.ts'
import { Keeping } from './keeping.ts'
import { KeptBans } from './kept-bans.ts'
import { KnownPaths } from './known-paths.ts'
import { PublishedNames } from './published-names.ts'
import { putLists, register, registrationsOf } from './registrations.ts'
import { toImageRow, toJournalEntry } from './rows.ts'
import { prepareStatements, type Statements } from './statements.ts'
import { WantedClosures } from './wanted-closures.ts'

export interface NewImage {
  readonly narHash: NarHash
  readonly source: ImageSource
  /** Where the tree is once it is verified. */
  readonly place: ImagePlace
  readonly name?: string | null
  /** By its NAR hash where absent. */
  readonly askedBy?: RefKind
  /** For a person, for instance why Nix's metadata is absent. */
  readonly note?: string | null
}

export interface TransitionDetails {
  /** One sentence for a person: why the state changes. */
  readonly reason: string
  readonly evidence?: Evidence
  /** Who vouches for the store path from now on; where absent, that stays as it is. */
  readonly vouchedBy?: Voucher | null
  /** The newest change time in the tree before it was proven; where absent, that stays as it is. */
  readonly newestChange?: number | null
}

export interface Description {
  /** The note is kept where there is none. */
  readonly note?: string | null
  /** Who vouches for the store path; nobody where absent. */
  readonly vouchedBy?: Voucher | null
}

/** One step in the journal of an image. */
interface Step {
  readonly event: JournalEvent
  readonly from: ImageState | null
  readonly to: ImageState | null
  readonly details: TransitionDetails
}

/** A step of the journal that was just written. */
export interface CatalogStep {
  readonly narHash: NarHash
  readonly event: JournalEvent
  readonly from: ImageState | null
  readonly to: ImageState | null
  readonly reason: string
  readonly evidence: Evidence | null
}

type StepListener = (step: CatalogStep) => void

/**
 * The database of images, their states and the evidence for each state. All methods are synchronous, and each one that
 * writes is one transaction, on disk when it returns. One process at a time has a catalog open: the lock that
 * `Content.open` takes sees to that.
 *
 * Every method throws NarvikError: `corrupt-catalog` where what is stored makes no sense, `disk-full` and `io-error`
 * where the disk fails; nothing is half written then.
 */
export class Catalog {
  /** What Nix has said of store paths. */
  readonly knownPaths: KnownPaths
  /** How long each image is kept. */
  readonly keeping: Keeping
  readonly closures: WantedClosures
  /** The peers that are kept away, and were not long ago. */
  readonly bans: KeptBans
  /** The published names that were seen. */
  readonly names: PublishedNames
  readonly #database: Database
  readonly #sql: Statements
  readonly #now: () => Date
  readonly #listeners = new Set<StepListener>()
  /** Steps of the transaction that is open. */
  #steps: CatalogStep[] = []

  private constructor(database: Database, now: () => Date) {
    this.#database = database
    this.#sql = prepareStatements(database)
    this.knownPaths = new KnownPaths(database, now)
    this.keeping = new Keeping(database, now)
    this.closures = new WantedClosures(database)
    this.bans = new KeptBans(database)
    this.names = new PublishedNames(database)
    this.#now = now
  }

  /**
   * Opens the catalog in `file`, makes it where there is none and brings an older one up to date.
   * @throws NarvikError `corrupt-catalog` where it is damaged, another program's, or of a newer Narvik.
   */
  static open(file: string, { now = () => new Date() }: { now?: () => Date } = {}): Catalog {
    return new Catalog(openDatabase(file), now)
  }

  close(): void {
    this.#database.close()
  }

  /** Calls `listener` with every step of the journal once it is on disk; returns how to stop that. */
  onStep(listener: StepListener): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  get(narHash: NarHash): ImageRow | undefined {
    return this.#read(() => this.#sql.byHash.get(narHash.bytes))
  }

  getByName(name: string): ImageRow | undefined {
    return this.#read(() => this.#sql.byName.get(name))
  }

  /** Several images may claim one store path: the one that is vouched for at that path comes first, then a verified one, then the newest. */
  getByStorePath(storePath: string): ImageRow | undefined {
    return this.#read(() => this.#sql.byStorePath.get({ path: storePath }))
  }

  /** Images in the order in which they were created. */
  list({ state }: { state?: ImageState } = {}): ImageRow[] {
    return run('list the images', () => (state === undefined ? this.#sql.all.all() : this.#sql.byState.all(state)).map(toImageRow))
  }

  /**
   * Makes many changes one transaction: they reach the disk together, or not at all where one of them throws.
   * `action` completes `Cannot …`.
   */
  together<Result>(action: string, changes: () => Result): Result {
    return this.#write(action, changes)
  }

  /** Images in a state, without reading them. */
  count(state: ImageState): number {
    return run('count the images', () => this.#sql.counts.all()).find(counted => counted.state === state)?.images ?? 0
  }

  /**
   * Makes the row of an image, in state `wanted`.
   * @throws NarvikError `conflict` where there is one, `name-taken` where another image has the name.
   */
  create(image: NewImage, reason = image.source === 'import' ? IMPORTED : ASKED_FOR): ImageRow {
    const { narHash, source, place, name = null, note = null, askedBy = 'nar-hash' } = image
    return this.#write(`create ${narHash.toSri()}`, () => {
      const present = this.get(narHash)
      if (present !== undefined) {
        throw new NarvikError('conflict', `Cannot create ${narHash.toSri()}: found it ${present.state}, needed it absent`)
      }
      this.#requireFreeName(name, narHash)
      this.#append(narHash, { event: 'create', from: null, to: 'wanted', details: { reason } })
      this.#sql.insert.run({ narHash: narHash.bytes, name, source, place, askedBy, reason, note, at: this.#now().getTime() })
      return this.#require(narHash, 'create')
    })
  }

  /**
   * Makes the row of an image whose whole tree is in quarantine or on its way there, but which the catalog doesn't
   * know: a row in state `quarantined`, with the journal of how it came there.
   * @throws NarvikError `conflict` where there is a row.
   */
  takeUp(image: NewImage, reason: string): ImageRow {
    return this.#write(`take up ${image.narHash.toSri()}`, () => {
      this.create(image, reason)
      this.transition(image.narHash, 'start', { reason })
      return this.transition(image.narHash, 'complete', { reason })
    })
  }

  /**
   * Puts down what is known of an image that is not verified yet, in place of what was. The name is left as it is: a
   * host names its images itself.
   * @throws NarvikError `not-found`, or `conflict` where the image is verified.
   */
  describe(narHash: NarHash, metadata: ImageMetadata, manifest: Uint8Array | null, { note, vouchedBy = null }: Description = {}): ImageRow {
    return this.#write(`describe ${narHash.toSri()}`, () => {
      const row = this.#require(narHash, 'describe')
      if (row.state === 'verified') {
        throw new NarvikError('conflict', `Cannot describe ${narHash.toSri()}: found it verified, needed it not yet verified`)
      }
      if (!metadata.narHash.equals(narHash)) {
        throw new NarvikError('invalid-argument', `Cannot describe ${narHash.toSri()}: found metadata of ${metadata.narHash.toSri()}, needed its own`)
      }
      this.#sql.describe.run({
        narHash: narHash.bytes, narSize: metadata.narSize, storePath: metadata.storePath, deriver: metadata.deriver,
        ca: metadata.ca, manifestDigest: metadata.manifestDigest, vouchedBy, note: note === undefined ? row.note : note,
      })
      putLists(this.#sql, narHash, metadata)
      this.#sql.dropManifest.run(narHash.bytes)
      if (manifest !== null) this.#sql.addManifest.run(narHash.bytes, manifest)
      return this.#require(narHash, 'describe')
    })
  }

  /** @throws NarvikError `not-found`, `invalid-argument`, or `name-taken` naming the other image. */
  setName(narHash: NarHash, name: string | null): ImageRow {
    return this.#write(`name ${narHash.toSri()}`, () => {
      this.#require(narHash, 'name')
      this.#requireFreeName(name, narHash)
      this.#sql.setName.run({ narHash: narHash.bytes, name })
      return this.#require(narHash, 'name')
    })
  }

  /**
   * The only way in which the state of an image changes, in one transaction with the journal entry that says why. An
   * image that is retried is to be received from peers: its source becomes `fetch` and its place `content`, and nobody vouches for
   * its store path.
   * @throws NarvikError `not-found`, or `conflict` where the table of transitions has no such step from its state, or
   * where an image would pass whose size or place is not known.
   */
  transition(narHash: NarHash, event: ImageEvent, details: TransitionDetails): ImageRow {
    return this.#write(`record "${event}" for ${narHash.toSri()}`, () => {
      const row = this.#require(narHash, event)
      const to = nextState(row.state, event)
      if (to === 'verified') requireDescribed(row)
      this.#append(narHash, { event, from: row.state, to, details })
      const verified = to === 'verified'
      this.#sql.setState.run({
        narHash: narHash.bytes, state: to, reason: verified ? null : details.reason, verifiedAt: verified ? this.#now().getTime() : null,
      })
      if (details.vouchedBy !== undefined) this.#sql.setVouchedBy.run({ narHash: narHash.bytes, vouchedBy: details.vouchedBy })
      if (details.newestChange !== undefined) this.#sql.setNewestChange.run({ narHash: narHash.bytes, newestChange: details.newestChange })
      if (event === 'retry') this.#sql.setOrigin.run({ narHash: narHash.bytes, source: 'fetch', place: 'content' })
      return this.#require(narHash, event)
    })
  }

  /** Every store path that the image is known under, the one of its row first. */
  registrations(narHash: NarHash): Registration[] {
    return run(`read the store paths of ${narHash.toSri()}`, () => {
      const row = this.get(narHash)
      return row === undefined ? [] : registrationsOf(this.#sql, row)
    })
  }

  /**
   * Puts down that an image is at a store path. What this host's Nix says takes the place of what was said of that path before, and
   * what somebody vouches for that of a claim, also as the path of the row; a claim about the path of the row changes nothing.
   * @throws NarvikError `not-found`.
   */
  addStorePath(narHash: NarHash, registration: Registration): void {
    this.#write(`add a store path to ${narHash.toSri()}`, () => {
      const row = this.#require(narHash, 'add a store path to')
      register(this.#sql, row, registration)
    })
  }

  /** Puts down under which policy the image is asked for now. */
  setAskedBy(narHash: NarHash, askedBy: RefKind): ImageRow {
    return this.#set(narHash, `note how ${narHash.toSri()} is asked for`, () => this.#sql.setAskedBy.run({ narHash: narHash.bytes, askedBy }))
  }

  /** Puts down whether the image is served to nobody. */
  setPrivate(narHash: NarHash, isPrivate: boolean): ImageRow {
    return this.#set(narHash, `make private ${narHash.toSri()}`, () => this.#sql.setPrivate.run({ narHash: narHash.bytes, isPrivate: Number(isPrivate) }))
  }

  setNote(narHash: NarHash, note: string | null): ImageRow {
    return this.#set(narHash, `note something of ${narHash.toSri()}`, () => this.#sql.setNote.run({ narHash: narHash.bytes, note }))
  }

  /** Puts down that the holder of a public key (hex) has published a name for the image. */
  setPublisher(narHash: NarHash, publisher: string): ImageRow {
    return this.#set(narHash, `note who published ${narHash.toSri()}`, () => this.#sql.setPublisher.run({ narHash: narHash.bytes, publisher }))
  }

  /** Gives an image a name, which another one may have had until now. */
  moveName(narHash: NarHash, name: string): ImageRow {
    return this.#write(`name ${narHash.toSri()}`, () => {
      const holder = this.getByName(name)
      if (holder !== undefined) this.#sql.setName.run({ narHash: holder.narHash.bytes, name: null })
      return this.setName(narHash, name)
    })
  }

  /** Puts down that a verified image was proven again while its tree was as new as this. */
  setNewestChange(narHash: NarHash, newestChange: number | null): ImageRow {
    return this.#set(narHash, `note the state of ${narHash.toSri()}`, () => this.#sql.setNewestChange.run({ narHash: narHash.bytes, newestChange }))
  }

  /** Puts down the manifest of an image that has none, as it was measured while it was proven. */
  setManifest(narHash: NarHash, manifest: Uint8Array, manifestDigest: string): ImageRow {
    return this.#write(`note the manifest of ${narHash.toSri()}`, () => {
      this.#require(narHash, 'note')
      this.#sql.setManifestDigest.run({ narHash: narHash.bytes, manifestDigest })
      this.#sql.dropManifest.run(narHash.bytes)
      this.#sql.addManifest.run(narHash.bytes, manifest)
      return this.#require(narHash, 'note')
    })
  }

  /** Puts down who vouches for the store path, when the keys that this host trusts have changed. */
  setVouchedBy(narHash: NarHash, vouchedBy: Voucher | null): ImageRow {
    return this.#set(narHash, `note who vouches for ${narHash.toSri()}`, () => this.#sql.setVouchedBy.run({ narHash: narHash.bytes, vouchedBy }))
  }

  /** The encoded manifest, as it was given to `describe`. */
  manifest(narHash: NarHash): Uint8Array | undefined {
    return run(`read the manifest of ${narHash.toSri()}`, () => this.#sql.manifest.get(narHash.bytes))
  }

  /** Every change of state, oldest first; also of an image that was removed since. */
  journal(narHash: NarHash): JournalEntry[] {
    return run(`read the journal of ${narHash.toSri()}`, () => this.#sql.journal.all(narHash.bytes).map(toJournalEntry))
  }

  /**
   * Removes the row of an image, in any state; its journal stays.
   * @throws NarvikError `not-found`.
   */
  remove(narHash: NarHash, reason: string): void {
    this.#write(`remove ${narHash.toSri()}`, () => {
      const row = this.#require(narHash, 'remove')
      this.#append(narHash, { event: 'remove', from: row.state, to: null, details: { reason } })
      this.#sql.remove.run(narHash.bytes)
    })
  }

  /** Changes what is known besides the state. */
  #set(narHash: NarHash, action: string, change: () => unknown): ImageRow {
    return this.#write(action, () => {
      this.#require(narHash, 'note something of')
      change()
      return this.#require(narHash, 'note something of')
    })
  }

  #read(query: () => Parameters<typeof toImageRow>[0] | undefined): ImageRow | undefined {
    return run('look up an image', () => {
      const stored = query()
      return stored === undefined ? undefined : toImageRow(stored)
    })
  }

  #write<Result>(action: string, change: () => Result): Result {
    if (this.#database.inTransaction) return run(action, () => this.#database.transaction(change).immediate())
    this.#steps = []
    const result = run(action, () => this.#database.transaction(change).immediate())
    for (const step of this.#steps.splice(0)) for (const listener of this.#listeners) listener(step)
    return result
  }

  #require(narHash: NarHash, action: string): ImageRow {
    const row = this.get(narHash)
    if (row !== undefined) return row
    throw new NarvikError('not-found', `Cannot ${action} ${narHash.toSri()}: found no such image in the catalog, needed one`)
  }

  #requireFreeName(name: string | null, narHash: NarHash): void {
    if (name === null) return
    if (!imageName.safeParse(name).success) {
      throw new NarvikError('invalid-argument', `Cannot name an image: found ${JSON.stringify(name.slice(0, 300))}, needed 1 to 211 of the characters 0-9 a-z A-Z + - . _ ? = and no leading dot`)
    }
    const holder = this.getByName(name)
    if (holder === undefined || holder.narHash.equals(narHash)) return
    throw new NarvikError('name-taken', `Cannot name an image ${name}: found that ${holder.narHash.toSri()} has the name, needed a free one`, { hint: `Choose another name, or remove the other image: narvik rm ${name}` })
  }

  #append(narHash: NarHash, { event, from, to, details }: Step): void {
    this.#sql.append.run({
      narHash: narHash.bytes, at: this.#now().getTime(), from, event, to, reason: details.reason,
      evidence: details.evidence === undefined ? null : JSON.stringify(details.evidence),
    })
    this.#steps.push({ narHash, event, from, to, reason: details.reason, evidence: details.evidence ?? null })
  }
}

function requireDescribed(row: ImageRow): void {
  const missing = row.narSize === null ? 'NAR size' : row.place === 'nix-store' && row.storePath === null ? 'store path' : undefined
  if (missing === undefined) return
  throw new NarvikError('conflict', `Cannot pass ${row.narHash.toSri()}: found no ${missing} in the catalog, needed one`)
}

function run<Result>(action: string, work: () => Result): Result {
  try {
    return work()
  } catch (error) {
    throw fromSqliteError(error, action)
  }
}
