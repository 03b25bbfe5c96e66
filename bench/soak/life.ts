import { rmSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isNarvikError } from '../../src/errors.ts'
import type { Random } from '../swarm/random.ts'
import type { Ledger } from './ledger.ts'
import type { Member } from './member.ts'

/** Images in the fleet, at the end of each round. */
const MANY = 24
/** Pieces of work under way on one host. */
const AT_ONCE = 6
const FETCH_SECONDS = 60
/** How long a link is down: a moment, or longer than a peer is waited for. */
const SHORT_CUT_MS = [200, 3000] as const
const LONG_CUT_MS = [10_000, 30_000] as const

const CALM = ['import', 'import', 'fetch', 'fetch', 'fetch', 'fetch', 'fetch', 'fetch', 'remove', 'collect'] as const
const STORMY = [...CALM, 'unplug', 'restart'] as const

type Fleet = readonly [Member, ...Member[]]

export interface LifeParts {
  readonly members: Fleet
  /** Those whose daemon is never ended, so that what they hold can be followed. */
  readonly steady: ReadonlySet<Member>
  readonly ledger: Ledger
  readonly random: Random
  /** Where trees are made that are imported. */
  readonly dir: string
}

/** What operators and machines do to a fleet, one thing after another, without waiting for any. */
export class Life {
  readonly #parts: LifeParts
  readonly #underWay = new Set<Promise<void>>()
  /** Work on one image of one host, and on one host, which nothing else may touch meanwhile. */
  readonly #taken = new Set<string>()
  readonly #busy = new Map<Member, number>()
  /** Answers that nobody expects, such as that an image was rejected. */
  readonly surprises: string[] = []
  #trees = 0

  constructor(parts: LifeParts) {
    this.#parts = parts
  }

  /** Does something at random moments until the time has come; only in a storm to links and daemons. */
  async goOn(until: number, { storm }: { readonly storm: boolean }): Promise<void> {
    const { random } = this.#parts
    while (performance.now() < until) {
      this.#begin(storm)
      await sleep(random.between(50, 700))
    }
  }

  /** Resolves when all that was begun has ended. */
  async rest(): Promise<void> {
    await Promise.all(this.#underWay)
  }

  /** Has every host remove the oldest images of all, so that the fleet keeps its size. */
  async thin(): Promise<void> {
    const { ledger, members } = this.#parts
    for (const narHash of ledger.alive().slice(0, -MANY)) {
      await Promise.all(members.filter(member => ledger.isHere(narHash, member)).map(member => this.#remove(member, narHash)))
    }
  }

  #begin(storm: boolean): void {
    const { random, members } = this.#parts
    const member = random.pick(members)
    const kind = random.pick(storm ? STORMY : CALM)
    if (kind === 'unplug') this.#start([`link ${member.number}`], member, () => this.#unplug(member))
    else if (kind === 'restart') this.#restart(member)
    else if ((this.#busy.get(member) ?? 0) >= AT_ONCE) return
    else if (kind === 'import') this.#start([], member, () => this.#import(member))
    else if (kind === 'collect') this.#collect(member)
    else this.#withImage(kind, member)
  }

  #withImage(kind: 'fetch' | 'remove', member: Member): void {
    const { random, ledger } = this.#parts
    const [first, ...rest] = (kind === 'fetch' ? ledger.alive() : ledger.heldBy(member)).filter(narHash => !this.#taken.has(`${narHash} ${member.number}`))
    if (first === undefined) return
    const narHash = random.pick([first, ...rest])
    this.#start([`${narHash} ${member.number}`], member, () => kind === 'fetch' ? this.#fetch(member, narHash) : this.#remove(member, narHash))
  }

  async #import(member: Member): Promise<void> {
    const { dir, random, ledger } = this.#parts
    const path = join(dir, `tree-${this.#trees++}`)
    plantTree(path, random)
    try {
      const named = random.fraction() < 0.4 ? { name: `image-${this.#trees}` } : {}
      const { narHash } = await member.client.import({ path, ...named })
      ledger.note(narHash, member, 'here')
      ledger.imported += 1
    } catch (error) {
      this.#judge('import', member, error, ['interrupted', 'unreachable'])
      ledger.noteOpenImport(member)
    } finally {
      rmSync(path, { recursive: true, force: true })
    }
  }

  async #fetch(member: Member, narHash: string): Promise<void> {
    const { ledger, random } = this.#parts
    const isHere = ledger.isHere(narHash, member)
    if (!isHere) ledger.note(narHash, member, 'open')
    try {
      await member.client.fetch({ ref: narHash, timeoutSeconds: FETCH_SECONDS, priority: random.between(-1, 1) })
      ledger.note(narHash, member, 'here')
      if (!isHere) ledger.fetched += 1
    } catch (error) {
      this.#judge('fetch', member, error, ['interrupted', 'unreachable', 'no-provider', 'timed-out', 'peer-failed'])
    }
  }

  async #remove(member: Member, narHash: string): Promise<void> {
    const { ledger } = this.#parts
    ledger.note(narHash, member, 'open', { removed: true })
    try {
      await member.client.remove(narHash)
      ledger.note(narHash, member, 'gone')
      ledger.removed += 1
    } catch (error) {
      this.#judge('remove', member, error, ['interrupted', 'unreachable'])
    }
  }

  /** What may be collected is known only by what was; so nothing else goes on with the images of the host. */
  #collect(member: Member): void {
    const { ledger } = this.#parts
    const held = ledger.heldBy(member)
    if ((this.#busy.get(member) ?? 0) > 0) return
    this.#start([`all ${member.number}`, ...held.map(narHash => `${narHash} ${member.number}`)], member, async () => {
      for (const narHash of held) ledger.note(narHash, member, 'open')
      try {
        const { collected } = await member.client.gc({})
        const gone = new Set(collected.map(({ narHash }) => narHash))
        for (const narHash of held) ledger.note(narHash, member, gone.has(narHash) ? 'gone' : 'here')
        ledger.collected += gone.size
      } catch (error) {
        this.#judge('gc', member, error, ['interrupted', 'unreachable'])
      }
    })
  }

  async #unplug(member: Member): Promise<void> {
    const { random } = this.#parts
    const [least, most] = random.fraction() < 0.7 ? SHORT_CUT_MS : LONG_CUT_MS
    await member.unplug()
    await sleep(random.between(least, most))
    await member.plug()
  }

  #restart(member: Member): void {
    if (this.#parts.steady.has(member)) return
    this.#start([`daemon ${member.number}`], member, () => member.restart())
  }

  /** Begins something, unless what it takes is taken. */
  #start(takes: readonly string[], member: Member, work: () => Promise<void>): void {
    if (takes.some(name => this.#taken.has(name)) || this.#taken.has(`all ${member.number}`)) return
    for (const name of takes) this.#taken.add(name)
    this.#busy.set(member, (this.#busy.get(member) ?? 0) + 1)
    const working = work().finally(() => {
      for (const name of takes) this.#taken.delete(name)
      this.#busy.set(member, (this.#busy.get(member) ?? 1) - 1)
      this.#underWay.delete(working)
    })
    this.#underWay.add(working)
  }

  #judge(what: string, member: Member, error: unknown, expected: readonly Parameters<typeof isNarvikError>[1][]): void {
    if (isNarvikError(error) && expected.includes(error.code)) return
    this.surprises.push(`${what} on host ${member.number}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** A file or a directory of some, from some KiB to some MiB; a part of it is the same in many. */
function plantTree(path: string, random: Random): void {
  const size = Math.round(2 ** (13 + 11.5 * random.fraction()))
  const shared = Buffer.alloc(Math.round(size * random.fraction() * 0.5), 'what many images have in common; ')
  if (random.fraction() < 0.5) {
    writeFileSync(path, Buffer.concat([shared, random.bytes(size - shared.length)]))
    return
  }
  mkdirSync(path)
  writeFileSync(join(path, 'shared'), shared)
  const files = random.between(1, 40)
  for (let number = 0; number < files; number++) writeFileSync(join(path, `file-${number}`), random.bytes(Math.ceil((size - shared.length) / files)))
}

function sleep(ms: number): Promise<void> {
  return new Promise(resolve => { setTimeout(resolve, ms) })
}
