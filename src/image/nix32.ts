/**
 * Nix's base 32: the alphabet leaves out e, o, u and t, and the text is the bytes read as one little-endian number,
 * most significant digit first (nix: src/libutil/base-nix-32.cc).
 */
const ALPHABET = '0123456789abcdfghijklmnpqrsvwxyz'
const VALUES = new Map(Array.from(ALPHABET, (char, value) => [char, value]))

/** Characters of the nix32 text of `bytes` bytes. */
export function nix32Length(bytes: number): number {
  return Math.ceil(bytes * 8 / 5)
}

export function encodeNix32(bytes: Uint8Array): string {
  let text = ''
  for (let digit = nix32Length(bytes.length) - 1; digit >= 0; digit--) {
    const bit = digit * 5
    const low = (bytes[bit >> 3] ?? 0) >> (bit & 7)
    const high = (bytes[(bit >> 3) + 1] ?? 0) << (8 - (bit & 7))
    text += ALPHABET.charAt((low | high) & 31)
  }
  return text
}

/** The bytes of a nix32 text, or undefined where it has another length, another character or bits left over. */
export function decodeNix32(text: string, length: number): Uint8Array | undefined {
  if (text.length !== nix32Length(length)) return undefined
  const bytes = new Uint8Array(length)
  for (let digit = 0; digit < text.length; digit++) {
    const value = VALUES.get(text.charAt(text.length - 1 - digit))
    if (value === undefined) return undefined
    const bit = digit * 5
    const index = bit >> 3
    const shifted = value << (bit & 7)
    bytes[index] = (bytes[index] ?? 0) | (shifted & 255)
    const carry = shifted >> 8
    if (carry === 0) continue
    if (index + 1 >= length) return undefined
    bytes[index + 1] = (bytes[index + 1] ?? 0) | carry
  }
  return bytes
}
