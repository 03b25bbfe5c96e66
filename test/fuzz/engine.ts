import type { Instrumented } from './instrument.ts'
import { Dice, mutate } from './mutate.ts'

/** What is fuzzed: something that takes bytes from outside. */
export interface Target {
  /** Inputs of the right form. */
  readonly seeds: () => readonly Uint8Array[]
  /** Takes the bytes as the product would; throws where that is wrong: an error that is none of ours, or a result that contradicts itself. */
  readonly run: (bytes: Uint8Array) => Promise<void> | void
  /** Bytes of the longest input that is tried. */
  readonly most?: number
}

export interface FuzzInit {
  readonly seed: number
  /** Inputs of earlier runs. */
  readonly corpus: readonly Uint8Array[]
  /** When to stop; looked at before each input. */
  readonly isOver: (runs: number) => boolean
}

export interface FuzzResult {
  readonly runs: number
  /** Inputs that reach what no other does. */
  readonly corpus: readonly Uint8Array[]
  /** Blocks that were reached, of any file. */
  readonly reached: number
  readonly finding: Finding | undefined
}

export interface Finding {
  readonly bytes: Uint8Array
  readonly error: unknown
}

interface Kept {
  readonly bytes: Uint8Array
  /** Times that something new came of it, so that what is fruitful is tried more often. */
  fruits: number
}

const DEFAULT_MOST = 4096

/** Changes inputs that have reached something new until one is found that goes wrong, or it is over. */
export async function fuzz({ seeds, run, most = DEFAULT_MOST }: Target, code: Instrumented, { seed, corpus, isOver }: FuzzInit): Promise<FuzzResult> {
  const dice = new Dice(seed)
  const reached = new Uint8Array(code.counters.length)
  const kept: Kept[] = []
  const words = wordsOf(code)
  let runs = 0

  /** Whether the input goes wrong; it is kept where it reaches something new. */
  const attempt = async (bytes: Uint8Array): Promise<Finding | undefined> => {
    runs += 1
    code.counters.fill(0)
    try {
      await run(bytes)
    } catch (error) {
      return { bytes, error }
    }
    if (isNew(code, reached)) kept.push({ bytes, fruits: 1 })
    return undefined
  }

  for (const bytes of [...seeds(), ...corpus]) {
    const finding = await attempt(bytes)
    if (finding !== undefined) return result(finding)
  }
  while (!isOver(runs)) {
    const parent = choose(kept, dice)
    const before = kept.length
    const finding = await attempt(mutate(parent.bytes, dice, { words, others: kept.map(({ bytes }) => bytes), most }))
    if (finding !== undefined) return result(finding)
    if (kept.length > before) parent.fruits += 1
    // Timers and sockets of the process have their turn.
    if (runs % 1000 === 0) await new Promise(setImmediate)
  }
  return result(undefined)

  function result(finding: Finding | undefined): FuzzResult {
    return { runs, corpus: kept.map(({ bytes }) => bytes), reached: reached.reduce((count, bits) => count + (bits === 0 ? 0 : 1), 0), finding }
  }
}

/** Half of the time one of the last few that were found, else one by its fruits. */
function choose(kept: readonly Kept[], dice: Dice): Kept {
  const newest = kept[kept.length - 1 - dice.below(Math.min(kept.length, 8))]
  if (dice.below(2) === 0 && newest !== undefined) return newest
  const [one, other] = [dice.of(kept), dice.of(kept)]
  if (one === undefined || other === undefined) return { bytes: new Uint8Array(0), fruits: 0 }
  return one.fruits >= other.fruits ? one : other
}

/** Whether a block ran that never did, or as often as it never did: once, twice, a few times, many times. */
function isNew({ counters, blocks }: Instrumented, reached: Uint8Array): boolean {
  let found = false
  for (let block = 0, end = Math.min(blocks(), counters.length); block < end; block++) {
    const times = counters[block] ?? 0
    if (times === 0) continue
    const bit = 1 << Math.min(7, 31 - Math.clz32(times))
    if (((reached[block] ?? 0) & bit) !== 0) continue
    reached[block] = (reached[block] ?? 0) | bit
    found = true
  }
  return found
}

/** The literals of the source in the ways in which they are on the wire: as they are, as strings of JSON, of the NAR format, as numbers of some bytes. */
function wordsOf({ words, numbers }: Instrumented): Uint8Array[] {
  return [
    ...[...words].flatMap(word => [Buffer.from(word, 'utf8'), Buffer.from(JSON.stringify(word), 'utf8'), framed(Buffer.from(word, 'utf8'))]),
    ...[...numbers].filter(value => Number.isSafeInteger(value) && value >= 0).flatMap(value => [Buffer.from(String(value)), Buffer.of(value & 0xff), uint64(value)]),
  ]
}

function framed(word: Buffer): Buffer {
  return Buffer.concat([uint64(word.length), word, Buffer.alloc((8 - word.length % 8) % 8)])
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
