/** Why bytes are no varint. The message reads `found …, needed …`. */
export class VarintProblem extends Error {
  override readonly name = 'VarintProblem'
}

/** Bytes that `value` takes as a varint: seven bits each, the lowest first. */
export function varintLength(value: number): number {
  let length = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) length++
  return length
}

/** Writes `value`, a whole number up to 2^53 - 1, at `at`; returns the offset after it. */
export function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  let rest = value
  let end = at
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[end++] = (rest % 0x80) | 0x80
  bytes[end++] = rest
  return end
}

/**
 * Reads a varint of the shortest form.
 * @throws VarintProblem where it is over `max`, is longer than it has to be, or the bytes end.
 */
export function readVarint(bytes: Uint8Array, at: number, max: number): { value: number, end: number } {
  let value = 0
  let scale = 1
  for (let end = at; end < at + MAX_BYTES; end++) {
    const byte = bytes[end]
    if (byte === undefined) throw new VarintProblem('found the end, needed a number')
    value += (byte & 0x7f) * scale
    scale *= 0x80
    if (byte >= 0x80) continue
    if (byte === 0 && end > at) throw new VarintProblem('found a number with needless bytes, needed the shortest form')
    if (value > max) throw new VarintProblem(`found the number ${value}, needed at most ${max}`)
    return { value, end: end + 1 }
  }
  throw new VarintProblem(`found a number of more than ${MAX_BYTES} bytes, needed at most ${max}`)
}

/** 49 bits: more than any size that Narvik takes, and exact in a float64. */
const MAX_BYTES = 7
