import { join } from 'node:path'
import { isNarvikError } from '../../src/errors.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { silentLogger } from '../../src/log.ts'
import { Catalog } from '../../src/store/catalog.ts'
import type { Content } from '../../src/store/content.ts'
import { reconcile } from '../../src/store/reconcile.ts'
import { clearTheWay } from '../../src/tasks/clear-the-way.ts'
import type { TaskContext } from '../../src/tasks/context.ts'
import { nameImage } from '../../src/tasks/name-image.ts'
import { dropImage } from '../../src/tasks/remove-image.ts'
import { served } from '../../src/tasks/serve.ts'
import { settle, withdrawDamaged } from '../../src/tasks/settle.ts'
import type { Proof } from '../../src/verify/pipeline.ts'
import { someHash, someMetadata } from './images.ts'
import { expectJournal } from './invariants.ts'
import { Killed, type Bytes, type MemoryDisk } from './memory-disk.ts'

type Parts = Pick<TaskContext, 'catalog' | 'content' | 'announcer' | 'logger' | 'uses'>

/** Everything that may happen to an image. */
type Happening = 'import' | 'ask' | 'receive' | 'complete' | 'lie' | 'break off' | 'judge' | 'rot' | 'notice' | 'verify' | 'repair' | 'start over' | 'discard' | 'name' | 'hide' | 'remove'

/** A number below `below`, from a seed. */
export type Chance = (below: number) => number

/**
 * A host of real catalog, content and tasks on a disk in memory, which is killed ahead of any step: a change of the disk, or a transaction.
 * At each step it is looked at what is in sight.
 */
export class ModelHost {
  readonly #disk: MemoryDisk
  readonly #content: Content
  readonly #chance: Chance
  readonly #images: readonly NarHash[]
  #catalog: Catalog
  #parts: Parts
  /** Steps until the kill; 0: it is dead. */
  #left = Infinity
  /** The images whose rows were written since they were looked at. */
  readonly #written = new Set<NarHash>()
  /** Where each image is that is shown or served. */
  readonly #inSight = new Map<NarHash, string>()
  /** What came since the start of the sequence, for whoever looks for a mistake. */
  trail: string[] = []
  /** How many steps were taken in each state, by state. */
  readonly seen = new Map<string, number>()

  constructor({ disk, content, catalog, images, chance }: { disk: MemoryDisk, content: Content, catalog: Catalog, images: number, chance: Chance }) {
    this.#disk = disk
    this.#content = content
    this.#catalog = catalog
    this.#chance = chance
    this.#images = Array.from({ length: images }, (_, index) => someHash(index))
    this.#parts = this.#partsOf(catalog)
    disk.onStep = what => { this.#step(what) }
  }

  /** One sequence: happenings to half of the images beside happenings to the others, a kill, and the start after it, which may be killed as well. */
  async live(happenings: number): Promise<void> {
    this.trail = []
    this.#left = 1 + this.#chance(40)
    const half = this.#images.length / 2
    const strands = [this.#images.slice(0, half), this.#images.slice(half)].map(async images => {
      for (let count = this.#chance(happenings) + 1; count > 0; count--) await this.#happen(images)
    })
    for (const { status, reason } of await Promise.allSettled(strands) as { status: string, reason?: unknown }[]) {
      if (status === 'rejected' && !isKill(reason)) throw reason
    }
    this.trail.push('killed')
    while (!await this.#start(this.#chance(4) === 0 ? 1 + this.#chance(8) : Infinity)) this.trail.push('killed at its start')
    this.#expectSettled()
  }

  /** Goes on with what another process finds in the catalog. */
  reopen(catalog: Catalog): void {
    this.#catalog = catalog
    this.#parts = this.#partsOf(catalog)
  }

  /** Start-up; false where it was killed. */
  async #start(steps: number): Promise<boolean> {
    this.#left = steps
    try {
      await reconcile(this.#parts.catalog, this.#content, { logger: silentLogger })
      // What it takes for a disk that fails is a kill all the same.
      return this.#left > 0
    } catch (error) {
      if (isKill(error)) return false
      throw error
    } finally {
      this.#left = Infinity
    }
  }

  /** A dead process changes nothing. */
  #step(what: string): void {
    if (this.#left <= 1) {
      this.#left = 0
      throw new Killed()
    }
    this.#left--
    this.trail.push(what)
    this.#expectNothingUnproven()
  }

  /** The catalog of a process that may be killed ahead of a transaction, in it, and after it. */
  #partsOf(catalog: Catalog): Parts {
    const mortal = new Proxy(catalog, {
      get: (target, property) => {
        const value: unknown = Reflect.get(target, property, target)
        if (typeof value !== 'function') return value
        if (!WRITERS.has(String(property))) return value.bind(target) as unknown
        return (...args: unknown[]): unknown => this.#write(String(property), subjectOf(args), () => Reflect.apply(value, target, args) as unknown)
      },
    })
    const announcer = { announce: () => undefined, withdraw: () => undefined } as unknown as TaskContext['announcer']
    const uses = { touch: () => undefined } as unknown as TaskContext['uses']
    return { catalog: mortal, content: this.#content, announcer, logger: silentLogger, uses }
  }

  #write(method: string, subject: NarHash | undefined, change: () => unknown): unknown {
    this.#step(`catalog ${method}`)
    for (const narHash of this.#images) if (subject === undefined || narHash.equals(subject)) this.#written.add(narHash)
    if (this.#left > 2 || this.#chance(2) === 0) return change()
    // Killed ahead of the commit: what was written is undone.
    this.#left = 0
    return this.#catalog.together('be killed', () => {
      change()
      throw new Killed()
    })
  }

  async #happen(images: readonly NarHash[]): Promise<void> {
    const narHash = images[this.#chance(images.length)]
    if (narHash === undefined) return
    const state = this.#catalog.get(narHash)?.state
    const possible = POSSIBLE[state ?? 'absent'] ?? []
    const happening = possible[this.#chance(possible.length)]
    if (happening === undefined) return
    this.seen.set(state ?? 'absent', (this.seen.get(state ?? 'absent') ?? 0) + 1)
    this.trail.push(`— ${happening} ${narHash.toNix32().slice(0, 4)} (${String(state)})`)
    try {
      await this.#do(happening, narHash)
    } catch (error) {
      // A name that another image has.
      if (!isNarvikError(error, 'name-taken')) throw error
    }
    const isDone = this.#left > 0 && this.#catalog.get(narHash)?.state !== 'verified'
    if (isDone && this.#disk.at(this.#content.imageTree(narHash)) !== undefined) throw new Error('what is not verified is in sight when the work is done')
  }

  async #do(happening: Happening, narHash: NarHash): Promise<void> {
    const { catalog, content } = this.#parts
    const row = catalog.get(narHash)
    const state = row?.state
    const tree = content.quarantineTree(narHash)
    switch (happening) {
      case 'import':
        await this.#import(narHash)
        break
      case 'ask':
        if (row === undefined) catalog.create({ narHash, source: 'fetch', place: 'content', name: this.#chance(2) === 0 ? this.#name() : null })
        break
      case 'receive':
        await this.#receive(narHash, state === 'wanted', 'part')
        break
      case 'complete':
      case 'lie':
        await this.#receive(narHash, state === 'wanted', happening === 'lie' ? 'wrong' : 'right')
        catalog.describe(narHash, someMetadata(narHash), Buffer.from('manifest'))
        catalog.transition(narHash, 'complete', { reason: 'All bytes are here' })
        break
      case 'break off':
        catalog.transition(narHash, 'interrupt', { reason: 'The peer went away' })
        break
      case 'judge':
        if (row !== undefined) await settle(this.#parts, row, this.#proofOf(narHash, tree))
        break
      case 'rot':
        if (this.#disk.at(content.imageTree(narHash))?.kind === 'tree') this.#disk.fill(content.imageTree(narHash), 'rotten')
        break
      case 'notice':
        if (row !== undefined) await withdrawDamaged(this.#parts, row, 'It is damaged')
        break
      case 'verify':
        await this.#verify(narHash)
        break
      case 'repair':
        await this.#repair(narHash)
        break
      case 'start over':
        await content.discard(narHash)
        catalog.transition(narHash, 'retry', { reason: 'Asked for again' })
        break
      case 'discard':
        await content.discardQuarantine(narHash)
        break
      case 'name':
        if (row !== undefined) await nameImage(this.#parts, row, this.#name())
        break
      case 'hide':
        catalog.setPrivate(narHash, row?.isPrivate !== true)
        break
      case 'remove':
        if (row !== undefined) await dropImage(this.#parts, row, 'Asked to')
        break
    }
  }

  async #import(narHash: NarHash): Promise<void> {
    const { catalog, content } = this.#parts
    const stage = await content.stage()
    this.#make(stage.tree, narHash, 'right')
    const name = catalog.get(narHash)?.name ?? null
    await clearTheWay(this.#parts, narHash)
    catalog.create({ narHash, source: 'import', place: 'content', name })
    catalog.transition(narHash, 'start', { reason: 'Imported' })
    await content.adopt(stage, narHash)
    catalog.describe(narHash, someMetadata(narHash), Buffer.from('manifest'))
    const row = catalog.transition(narHash, 'complete', { reason: 'Copied' })
    await settle(this.#parts, row, this.#proofOf(narHash, content.quarantineTree(narHash)))
  }

  async #receive(narHash: NarHash, isStart: boolean, bytes: Bytes): Promise<void> {
    const { catalog, content } = this.#parts
    if (isStart) catalog.transition(narHash, 'start', { reason: 'Received' })
    await content.begin(narHash)
    const tree = content.quarantineTree(narHash)
    if (this.#disk.at(tree) === undefined) this.#make(tree, narHash, 'part')
    await content.writeProgress(narHash, { offset: 10 })
    this.#disk.fill(tree, bytes)
  }

  async #verify(narHash: NarHash): Promise<void> {
    const { content, catalog } = this.#parts
    const row = catalog.get(narHash)
    const proof = this.#proofOf(narHash, content.imageTree(narHash))
    if (row === undefined || proof.verdict.verdict === 'pass') return
    await settle(this.#parts, await withdrawDamaged(this.#parts, row, 'It is damaged'), proof)
  }

  async #repair(narHash: NarHash): Promise<void> {
    const { content, catalog } = this.#parts
    const row = catalog.get(narHash)
    if (row === undefined) return
    if (row.state === 'verified') await withdrawDamaged(this.#parts, row, 'It is damaged')
    else for (const event of ['retry', 'start', 'complete'] as const) catalog.transition(narHash, event, { reason: 'It is to be repaired' })
    await content.begin(narHash)
    const tree = content.quarantineTree(narHash)
    if (this.#disk.at(tree) === undefined) this.#make(tree, narHash, 'part')
    this.#disk.fill(tree, this.#chance(4) === 0 ? 'wrong' : 'right')
    await settle(this.#parts, catalog.get(narHash) ?? row, this.#proofOf(narHash, tree))
  }

  #make(path: string, narHash: NarHash, bytes: Bytes): void {
    this.#disk.put(path, { kind: 'tree', isDirectory: this.#images.indexOf(narHash) % 2 === 0, mode: 0o755, of: narHash.toNix32(), bytes })
  }

  #name(): string {
    return `name-${this.#chance(3)}`
  }

  /** What the verify pipeline says of a tree. */
  #proofOf(narHash: NarHash, path: string): Proof {
    const tree = this.#disk.at(path)
    const isRight = tree?.kind === 'tree' && tree.bytes === 'right' && tree.of === narHash.toNix32()
    const verdict = isRight ? { verdict: 'pass', stages: [], reason: null } as const : { verdict: 'fail', stages: [], reason: 'It is not what was asked for' } as const
    return { verdict, measured: isRight ? { narHash, narSize: 4096, manifest: Buffer.from('manifest'), manifestDigest: '0'.repeat(64) } : null, newestChange: null, vouchedBy: null }
  }

  /**
   * Whatever is under images/ or reached by a name is what was proven to be that image; it may only have rotted there since, which no program did. What
   * is shown or served is such a tree.
   */
  #expectNothingUnproven(): void {
    const { dataDir } = this.#content
    for (const name of this.#disk.names(join(dataDir, 'images'))) this.#expectProven(name, join(dataDir, 'images', name))
    for (const name of this.#disk.names(join(dataDir, 'by-name'))) {
      const link = this.#disk.at(join(dataDir, 'by-name', name))
      if (link?.kind === 'symlink' && !link.target.startsWith('../images/')) throw new Error(`a name leads to ${link.target}`)
    }
    for (const name of this.#disk.names(join(dataDir, 'quarantine'))) {
      const tree = this.#disk.at(join(dataDir, 'quarantine', name, 'tree'))
      // What has rotted was proven only where it was.
      if (tree?.kind === 'tree' && tree.bytes === 'rotten') tree.bytes = 'wrong'
    }
    for (const narHash of this.#written) this.#readRow(narHash)
    this.#written.clear()
    for (const [narHash, path] of this.#inSight) this.#expectProven(narHash.toNix32(), path)
  }

  #readRow(narHash: NarHash): void {
    const row = this.#catalog.get(narHash)
    const path = row === undefined ? null : this.#content.visiblePath(row)
    if ((path !== null || served(this.#catalog, narHash) !== undefined) && row?.state !== 'verified') throw new Error(`an image that is ${String(row?.state)} is shown or served`)
    if (path === null) this.#inSight.delete(narHash)
    else this.#inSight.set(narHash, path)
  }

  #expectProven(nix32: string, path: string): void {
    const tree = this.#disk.at(path)
    // Of what is verified, a tree that is moved out of sight for damage is the only one that may be missing, and only before its row is changed.
    if (tree?.kind !== 'tree' || tree.of !== nix32 || (tree.bytes !== 'right' && tree.bytes !== 'rotten')) throw new Error(`${path} is ${tree?.kind === 'tree' ? tree.bytes : String(tree?.kind)}`)
  }

  /** What holds after a start: see `expectInvariants`, of which this is the fast half. */
  #expectSettled(): void {
    this.#expectNothingUnproven()
    const { dataDir } = this.#content
    const rows = this.#catalog.list()
    const verified = rows.filter(({ state }) => state === 'verified')
    same('images/', this.#disk.names(join(dataDir, 'images')), verified.map(({ narHash }) => narHash.toNix32()))
    same('by-name/', this.#disk.names(join(dataDir, 'by-name')), verified.flatMap(({ name }) => name ?? []))
    for (const { name, narHash } of verified) {
      const link = name === null ? undefined : this.#disk.at(join(dataDir, 'by-name', name))
      if (link !== undefined && (link.kind !== 'symlink' || link.target !== `../images/${narHash.toNix32()}`)) throw new Error(`the name ${String(name)} leads elsewhere`)
    }
    const states = new Map(rows.map(({ narHash, state }) => [narHash.toNix32(), state]))
    for (const name of this.#disk.names(join(dataDir, 'quarantine'))) {
      if (!['wanted', 'quarantined', 'rejected'].includes(states.get(name) ?? 'absent')) throw new Error(`quarantine/ has ${name}, which is ${states.get(name) ?? 'absent'}`)
    }
    for (const { narHash, state } of rows) {
      if (state === 'receiving') throw new Error('an image is being received by nobody')
      if (state === 'quarantined' && this.#disk.at(this.#content.quarantineTree(narHash)) === undefined) throw new Error('what is quarantined is not there')
    }
  }

  /** Every change of state begins where the one before it ended. */
  expectJournals(): void {
    for (const narHash of this.#images) expectJournal(this.#catalog.journal(narHash), this.#catalog.get(narHash)?.state ?? null)
  }
}

/** What may happen in each state; jobs on one image never run side by side. */
const POSSIBLE: Readonly<Record<string, readonly Happening[]>> = {
  absent: ['import', 'ask', 'ask'],
  wanted: ['import', 'receive', 'complete', 'complete', 'lie', 'name', 'hide', 'remove'],
  receiving: ['receive', 'complete', 'complete', 'lie', 'break off'],
  quarantined: ['judge', 'judge', 'judge', 'name', 'remove', 'import'],
  verified: ['rot', 'notice', 'verify', 'verify', 'repair', 'name', 'hide', 'remove'],
  rejected: ['start over', 'repair', 'discard', 'import', 'remove'],
}

const WRITERS = new Set(['create', 'takeUp', 'describe', 'setName', 'transition', 'setPrivate', 'setManifest', 'moveName', 'remove', 'together'])

/** The image that a method of the catalog is about; undefined where it may be any. */
function subjectOf([first]: readonly unknown[]): NarHash | undefined {
  const subject = first instanceof NarHash ? first : (first as { narHash?: unknown }).narHash
  return subject instanceof NarHash ? subject : undefined
}

function isKill(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (cause instanceof Killed) return true
  return false
}

function same(what: string, found: readonly string[], expected: readonly string[]): void {
  // Compared as text: an expectation costs more than all the rest.
  const [left, right] = [[...found].sort().join(' '), [...expected].sort().join(' ')]
  if (left !== right) throw new Error(`${what} has ${left}, needed what is verified: ${right}`)
}
