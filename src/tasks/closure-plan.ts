const ABSENT = 0
const ARRIVED = 1
const HERE = 2

/**
 * What of a closure is here, and what waits for what. Its paths are numbers; each refers only to smaller ones, or to itself. They
 * may arrive in any order, and are let in dependencies first.
 */
export class ClosurePlan {
  readonly #dependents: readonly number[][]
  /** How many of its references are not here yet. */
  readonly #waits: Int32Array
  readonly #states: Uint8Array
  /** Those that may be let in, as soon as they have arrived. */
  readonly #ready: number[] = []
  #left: number

  constructor(references: readonly (readonly number[])[]) {
    this.#left = references.length
    this.#states = new Uint8Array(references.length)
    this.#waits = new Int32Array(references.length)
    this.#dependents = references.map(() => [])
    for (const [number, list] of references.entries()) {
      for (const reference of list) {
        if (reference === number) continue
        this.#dependents[reference]?.push(number)
        this.#waits[number] = (this.#waits[number] ?? 0) + 1
      }
    }
  }

  /** How many are not here. */
  get left(): number {
    return this.#left
  }

  /** Whether nothing of it is here, nor waits to be let in. */
  isAbsent(number: number): boolean {
    return this.#states[number] === ABSENT
  }

  /** Whether all that it refers to is here. */
  isFree(number: number): boolean {
    return this.#waits[number] === 0
  }

  /** It waits to be let in. */
  arrive(number: number): void {
    if (this.#states[number] !== ABSENT) return
    this.#states[number] = ARRIVED
    if (this.isFree(number)) this.#ready.push(number)
  }

  /** It is here, in whatever way it came. */
  settle(number: number): void {
    if (this.#states[number] === HERE) return
    this.#states[number] = HERE
    this.#left--
    for (const dependent of this.#dependents[number] ?? []) {
      this.#waits[dependent] = (this.#waits[dependent] ?? 0) - 1
      if (this.isFree(dependent)) this.#ready.push(dependent)
    }
  }

  /** Those that may be let in together, each after what it refers to, at most `most`; they count as here from now on. */
  takeReady(most: number): number[] {
    const group: number[] = []
    while (group.length < most) {
      const next = this.#ready.shift()
      if (next === undefined) break
      if (this.#states[next] !== ARRIVED) continue
      this.settle(next)
      group.push(next)
    }
    return group
  }
}
