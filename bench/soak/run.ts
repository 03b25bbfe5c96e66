import { copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { isNarvikError, messageOf } from '../../src/errors.ts'
import { describeMachine, keep, load } from '../record.ts'
import { linesOf, type Result } from '../result.ts'
import { Fleet } from '../swarm/fleet.ts'
import { Star } from '../swarm/network.ts'
import { Random } from '../swarm/random.ts'
import { openWorkshop } from '../swarm/workshop.ts'
import { requireTools } from '../tools.ts'
import { addTo, type Books, disagreements, impossibilities } from './books.ts'
import { growthOf, isEnough, tableOf } from './flat.ts'
import { Ledger } from './ledger.ts'
import { Life } from './life.ts'
import { Member } from './member.ts'
import { FULL_MINUTES, readSettings, type Settings } from './settings.ts'

/** Slow enough for what happens to a link or a daemon to fall into transfers. */
const MBIT = 60
/** Seconds of life between two looks at the books. */
const ROUND_SECONDS = 20
/** Seconds within which a fleet that is left alone comes to rest. */
const REST_SECONDS = 180
/** Seconds for the two ends of what a storm has cut to agree, where they can. */
const STORM_SECONDS = 20
const ENVIRONMENT = { NARVIK_LOG_LEVEL: 'info', NARVIK_LOG_FORMAT: 'json', NARVIK_SPACE_MIN_FREE: '0' }
const INTRODUCTION = 'Made by `npm run soak`: real daemons in network namespaces that import, fetch, remove, collect, are stopped, killed and cut off at random, and are looked at each time they are left alone.'

type Members = readonly [Member, ...Member[]]

type Sentence = 'memory' | 'handles' | 'books' | 'images' | 'surprises'

/** What was found wrong, by the sentence that it contradicts; said as it is found. */
class Findings {
  readonly #found: Record<Sentence, string[]> = { memory: [], handles: [], books: [], images: [], surprises: [] }

  get all(): Readonly<Record<Sentence, readonly string[]>> {
    return this.#found
  }

  add(sentence: Sentence, ...found: readonly string[]): void {
    this.#found[sentence].push(...found)
    for (const what of found) console.log(`wrong: ${what}`)
  }
}

async function main(): Promise<void> {
  const settings = readSettings(process.env)
  await requireTools(['iproute2'])
  const dir = openWorkshop()
  const before = load()
  console.log(`${settings.hosts} hosts for ${settings.minutes} minutes; SOAK_RANDOM=${settings.random} makes the same choices again`)
  await using star = await Star.build(settings.hosts, { mbit: MBIT })
  await using fleet = await Fleet.create(dir)
  const members = await startMembers(fleet, star)
  const soak = new Soak(members, settings, dir)
  await soak.run()
  const result = soak.result()
  console.log(linesOf(result).join('\n'))
  if (settings.minutes >= FULL_MINUTES) await keep('soak', INTRODUCTION, { ...await describeMachine({ settings: JSON.stringify(settings) }), load: `${before} before, ${load()} after (one minute each)` }, [result])
  if (soak.failed) {
    process.exitCode = 1
    console.error(`The logs of the daemons are in ${keepLogs(members)}`)
  }
}

/** All of them know the first two, so that each of these may be away. */
async function startMembers(fleet: Fleet, { stations }: Star): Promise<Members> {
  const [first, second, ...rest] = stations
  if (first === undefined || second === undefined) throw new Error('Cannot soak fewer than two hosts')
  const env = ENVIRONMENT
  const one = await Member.start(1, fleet, first, { env })
  const two = await Member.start(2, fleet, second, { env, bootstrap: [one.host] })
  const others = await Promise.all(rest.map((station, index) => Member.start(index + 3, fleet, station, { env, bootstrap: [one.host, two.host] })))
  return [one, two, ...others]
}

class Soak {
  readonly #members: Members
  readonly #settings: Settings
  readonly #ledger = new Ledger()
  readonly #life: Life
  readonly #random: Random
  readonly #findings = new Findings()
  #books: Books = new Map()
  /** By how much the ends disagree since the last storm. */
  #doubt: ReadonlyMap<string, number> = new Map()
  #rounds = 0

  constructor(members: Members, settings: Settings, parent: string) {
    const dir = join(parent, 'trees')
    mkdirSync(dir)
    this.#members = members
    this.#settings = settings
    this.#random = new Random(settings.random, 'soak')
    this.#life = new Life({ members, steady: new Set(members.slice(0, 2)), ledger: this.#ledger, random: this.#random, dir })
  }

  get failed(): boolean {
    return Object.values(this.#findings.all).some(found => found.length > 0)
  }

  /** Storms and calms take turns, so that books which must balance to the byte are looked at apart. */
  async run(): Promise<void> {
    const end = performance.now() + this.#settings.minutes * 60_000
    while (performance.now() < end) {
      this.#rounds += 1
      const storm = this.#rounds % 2 === 1
      await this.#life.goOn(Math.min(end, performance.now() + ROUND_SECONDS * 1000), { storm })
      await this.#rest(storm)
      const { imported, fetched, removed, collected } = this.#ledger
      console.log(`round ${this.#rounds}, ${storm ? 'storm' : 'calm'}: ${imported} imported, ${fetched} fetched, ${removed} removed, ${collected} collected, ${this.#ledger.alive().length} there`)
      if (this.#random.fraction() < 0.3) await this.#random.pick(this.#members.slice(2) as [Member, ...Member[]]).killAtRest()
    }
    await this.#prove()
    for (const member of this.#members.slice(0, 2)) this.#findings.add('memory', ...growthOf(member, ['resident', 'heap']))
    for (const member of this.#members) {
      this.#findings.add('handles', ...growthOf(member, ['files', 'handles']))
      this.#findings.add('surprises', ...(await member.loggedErrors()).map(line => `host ${member.number} logged ${line}`))
    }
    this.#findings.add('surprises', ...this.#life.surprises)
  }

  /** Leaves the fleet alone until nothing moves, and looks at everything. */
  async #rest(storm: boolean): Promise<void> {
    await this.#life.rest()
    await this.#life.thin()
    await this.#until('each host to see each', async () => (await Promise.all(this.#members.map(({ client }) => client.status()))).every(({ peers }) => peers >= this.#members.length - 1))
    for (const member of this.#members) await this.#finish(member)
    await this.#until('the transfers to end', async () => (await Promise.all(this.#members.map(({ client }) => client.transfers()))).flat().every(({ direction }) => direction === 'out'))
    await this.#balance(storm)
    for (const member of this.#members) {
      this.#findings.add('images', ...await this.#ledger.settle(member))
      await member.sample()
    }
    this.#findings.add('images', ...this.#ledger.lost())
  }

  /** What broke off at one end is noticed by the other a little later. */
  async #balance(storm: boolean): Promise<void> {
    const isSettled = async (): Promise<boolean> => {
      const found = disagreements(await this.#sum())
      return impossibilities(this.#books).length === 0 && Array.from(found).every(([kind, bytes]) => bytes === (this.#doubt.get(kind) ?? 0))
    }
    const balanced = await this.#comes(isSettled, storm ? STORM_SECONDS : REST_SECONDS)
    const before = this.#doubt
    this.#doubt = disagreements(this.#books)
    if (balanced) return
    const wrong = impossibilities(this.#books)
    for (const [kind, bytes] of this.#doubt) {
      // Both ends of a session in chunks count it alike, however it ends.
      const isExcused = storm && kind !== 'chunks'
      if (!isExcused && bytes !== (before.get(kind) ?? 0)) wrong.push(`${kind}: the ends disagree by ${bytes - (before.get(kind) ?? 0)} bytes`)
    }
    this.#findings.add('books', ...wrong.map(what => `round ${this.#rounds}: ${what}`))
  }

  /** Has everything that is not whole made so where somebody has it, and given up where nobody has. */
  async #finish(member: Member): Promise<void> {
    const lists = await Promise.all(this.#members.map(({ client }) => client.list()))
    const held = new Set(lists.flat().filter(({ state }) => state === 'verified').map(({ narHash }) => narHash))
    const unfinished = (await member.client.list()).filter(({ state }) => state !== 'verified').map(({ narHash }) => narHash)
    await Promise.all(unfinished.map(async ref => {
      try {
        if (held.has(ref)) await member.client.fetch({ ref, timeoutSeconds: REST_SECONDS })
        else await member.client.remove(ref)
      } catch (error) {
        if (!isNarvikError(error, 'not-found')) this.#findings.add('images', `host ${member.number} at rest: ${messageOf(error)}`)
      }
    }))
  }

  async #sum(): Promise<Books> {
    this.#books = new Map()
    for (const books of await Promise.all(this.#members.map(member => member.books()))) addTo(this.#books, books)
    return this.#books
  }

  /** Reads every image on every host once more. */
  async #prove(): Promise<void> {
    for (const { client, number } of this.#members) {
      const { results } = await client.verify({ all: true })
      for (const { narHash, verdict, reason } of results) if (verdict !== 'pass') this.#findings.add('images', `host ${number}: ${narHash} is damaged: ${String(reason)}`)
    }
  }

  async #until(what: string, isSo: () => Promise<boolean>): Promise<void> {
    if (!await this.#comes(isSo, REST_SECONDS)) this.#findings.add('images', `round ${this.#rounds}: waited ${REST_SECONDS} s for ${what}`)
  }

  async #comes(isSo: () => Promise<boolean>, seconds: number): Promise<boolean> {
    const deadline = performance.now() + seconds * 1000
    while (!await isSo()) {
      if (performance.now() > deadline) return false
      await new Promise(resolve => setTimeout(resolve, 250))
    }
    return true
  }

  result(): Result {
    const { imported, fetched, removed, collected, size } = this.#ledger
    const verdict = (sentence: string, found: readonly string[]): string[] =>
      [`${found.length === 0 ? 'yes' : 'NO'}: ${sentence}`, ...found.slice(0, 10).map(what => `   ${what}`), ...(found.length > 10 ? [`   and ${found.length - 10} more`] : [])]
    const judged = isEnough(this.#members) ? '' : ' (too short to say)'
    const { memory, handles, books, images, surprises } = this.#findings.all
    const lines = Array.from(this.#books, ([kind, { sent, received, sentBroken, receivedBroken }]) =>
      `${kind}: ${sent} bytes sent = ${received} received + ${sent - received} lost; in exchanges that broke off ${sentBroken} sent, ${receivedBroken} received; in doubt ${this.#doubt.get(kind) ?? 0}`)
    return {
      name: `Soak: ${this.#settings.hosts} hosts for ${this.#settings.minutes} minutes`,
      figures: {},
      table: tableOf(this.#members),
      ratios: [],
      notes: [
        'lost: sent and not arrived; in doubt: of exchanges that a storm cut between the last byte that was sent and its arrival, so that the ends can\'t agree',
        'a → b → c: in the three thirds of the time, each time the fleet was at rest; hosts 1 and 2 were never restarted',
        `${size} images: ${imported} imports, ${fetched} fetches, ${removed} removals, ${collected} collected; SOAK_RANDOM=${this.#settings.random}`,
        ...lines,
        ...verdict(`memory stays flat${judged}`, memory),
        ...verdict(`handles and open files stay flat${judged}`, handles),
        ...verdict('the books balance', books),
        ...verdict('every image is accounted for, and proven', images),
        ...verdict('nothing else went wrong', surprises),
      ],
    }
  }
}

/** The directory of the run goes with it. */
function keepLogs(members: Members): string {
  const dir = `/tmp/narvik-soak-logs-${process.pid}`
  mkdirSync(dir, { recursive: true })
  for (const { number, host } of members) copyFileSync(`${host.dir}.log`, join(dir, `host-${number}.log`))
  return dir
}

await main()
process.exit()
