import { NarvikError } from '../errors.ts'
import { NarHash } from '../image/nar-hash.ts'
import { MAX_METADATA_BYTES, MAX_NAR_SIZE, MAX_REFERENCES, MAX_SIGNATURES } from '../limits.ts'
import { formatContentAddress, parseContentAddress, type ContentAddress } from './content-address.ts'
import { prefixedNix32, tryParseHash, type NixHash } from './hash.ts'
import { quote } from './quote.ts'
import { tryParseSignature } from './signature.ts'
import { compareBytes, DEFAULT_STORE_DIR, tryParseBaseName, tryParseStorePath } from './store-path.ts'

/** The names of compressions that a Nix of any age knows. */
export const COMPRESSIONS = ['none', 'xz', 'bzip2', 'zstd', 'gzip', 'br', 'lz4', 'lzip', 'lzma', 'compress', 'grzip', 'lrzip', 'lzop'] as const
export type Compression = (typeof COMPRESSIONS)[number]

/** What a binary cache says of one store path (nix: src/libstore/nar-info.cc). */
export interface NarInfo {
  /** Full store path, as are `references` and `deriver`. */
  readonly storePath: string
  /** Relative to the cache's root, or absolute. */
  readonly url: string
  readonly compression: Compression
  /** Of the compressed file. Nix never checks it. */
  readonly fileHash: NixHash | null
  /** Bytes of the compressed file. */
  readonly fileSize: number | null
  readonly narHash: NarHash
  /** Bytes. */
  readonly narSize: number
  /** Sorted. */
  readonly references: readonly string[]
  readonly deriver: string | null
  readonly signatures: readonly string[]
  readonly ca: ContentAddress | null
}

type Fields = ReadonlyMap<string, readonly string[]>

/**
 * Reads a narinfo as strictly as the strictest Nix: what is read here is read alike by all of them. Unknown fields are
 * passed over, as Nix does.
 * @throws NarvikError `invalid-argument` naming the line or the field.
 */
export function parseNarInfo(text: string, storeDir = DEFAULT_STORE_DIR): NarInfo {
  const fields = splitFields(text)
  const toPath = (field: string, baseName: string): string => {
    if (tryParseBaseName(baseName) === undefined) throw invalid(field, baseName, '<hash>-<name>')
    return `${storeDir}/${baseName}`
  }
  const storePath = required(fields, 'StorePath')
  if (tryParseStorePath(storePath, storeDir) === undefined) throw invalid('StorePath', storePath, `a store path in ${storeDir}`)
  const deriver = optional(fields, 'Deriver')
  const ca = optional(fields, 'CA')
  return {
    storePath,
    url: parseUrl(required(fields, 'URL')),
    compression: parseCompression(optional(fields, 'Compression')),
    fileHash: parseFileHash(optional(fields, 'FileHash')),
    fileSize: parseFileSize(optional(fields, 'FileSize')),
    narHash: parseNarHash(required(fields, 'NarHash')),
    narSize: parseSize('NarSize', required(fields, 'NarSize')),
    references: parseReferences(optional(fields, 'References') ?? '').map(name => toPath('References', name)),
    deriver: deriver === undefined || deriver === 'unknown-deriver' ? null : toPath('Deriver', deriver),
    signatures: parseSignatures(fields.get('Sig') ?? []),
    ca: ca === undefined || ca === '' ? null : parseCa(ca),
  }
}

/**
 * Prints a narinfo as Nix does, field by field in its order.
 * @throws NarvikError `invalid-argument` where Nix could not read what would be printed.
 */
export function formatNarInfo(info: NarInfo, storeDir = DEFAULT_STORE_DIR): string {
  const lines: [field: string, value: string | null][] = [
    ['StorePath', info.storePath],
    ['URL', info.url],
    ['Compression', info.compression],
    ['FileHash', info.fileHash === null ? null : prefixedNix32(info.fileHash)],
    ['FileSize', info.fileSize === null ? null : String(info.fileSize)],
    ['NarHash', `sha256:${info.narHash.toNix32()}`],
    ['NarSize', String(info.narSize)],
    ['References', [...info.references].sort(compareBytes).map(path => baseNameOf(path, storeDir)).join(' ')],
    ['Deriver', info.deriver === null ? null : baseNameOf(info.deriver, storeDir)],
    ...info.signatures.map((signature): [string, string] => ['Sig', signature]),
    ['CA', info.ca === null ? null : formatContentAddress(info.ca)],
  ]
  const text = lines.filter(([, value]) => value !== null).map(([field, value]) => `${field}: ${value ?? ''}\n`).join('')
  // The reader is the one place that knows what is allowed.
  parseNarInfo(text, storeDir)
  return text
}

/** Whether a narinfo answers the question for this path: Nix compares the hash part only. */
export function answersFor(info: NarInfo, storePath: string): boolean {
  return info.storePath === storePath
}

/** Those that may stand only once; Nix up to 2.8 minds two of them. */
const REPEATABLE = new Set(['Sig'])
const KNOWN = new Set(['StorePath', 'URL', 'Compression', 'FileHash', 'FileSize', 'NarHash', 'NarSize', 'References', 'Deriver', 'Sig', 'CA'])

function splitFields(text: string): Fields {
  if (text.length > MAX_METADATA_BYTES) throw new NarvikError('too-large', `Cannot read a narinfo: found ${text.length} characters, needed at most ${MAX_METADATA_BYTES}`)
  if (!text.endsWith('\n')) throw new NarvikError('invalid-argument', `Cannot read a narinfo: found ${quote(text.slice(-40))} at its end, needed a newline`)
  const fields = new Map<string, string[]>()
  text.slice(0, -1).split('\n').forEach((line, index) => {
    const separator = line.indexOf(': ')
    if (separator < 1 || line.indexOf(':') !== separator || /[^\x20-\x7e]/.test(line)) {
      throw new NarvikError('invalid-argument', `Cannot read line ${index + 1} of a narinfo: found ${quote(line)}, needed a name, a colon, a space and a value`)
    }
    const field = line.slice(0, separator)
    if (!KNOWN.has(field)) return
    const values = fields.get(field) ?? []
    if (values.length > 0 && !REPEATABLE.has(field)) throw invalid(field, line, 'it once')
    fields.set(field, [...values, line.slice(separator + 2)])
  })
  return fields
}

function required(fields: Fields, field: string): string {
  const value = optional(fields, field)
  if (value === undefined || value === '') throw invalid(field, value ?? null, 'a value')
  return value
}

function optional(fields: Fields, field: string): string | undefined {
  return fields.get(field)?.[0]
}

function parseUrl(text: string): string {
  if (/\s/.test(text)) throw invalid('URL', text, 'no spaces')
  return text
}

/** An absent compression means bzip2, for the sake of the oldest caches. */
function parseCompression(text: string | undefined): Compression {
  const name = text === undefined || text === '' ? 'bzip2' : text
  const known = COMPRESSIONS.find(compression => compression === name)
  if (known === undefined) throw invalid('Compression', name, COMPRESSIONS.join(', '))
  return known
}

function parseFileHash(text: string | undefined): NixHash | null {
  if (text === undefined) return null
  const hash = tryParseHash(text)
  if (hash === undefined) throw invalid('FileHash', text, 'a hash with its algorithm')
  return hash
}

function parseFileSize(text: string | undefined): number | null {
  return text === undefined ? null : parseSize('FileSize', text)
}

function parseNarHash(text: string): NarHash {
  const hash = tryParseHash(text)
  if (hash?.algorithm !== 'sha256') throw invalid('NarHash', text, 'sha256:<nix32>')
  return NarHash.fromBytes(hash.bytes)
}

function parseSize(field: string, text: string): number {
  const size = /^(?:0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : Number.NaN
  const least = field === 'NarSize' ? 1 : 0
  if (!(size >= least && size <= MAX_NAR_SIZE)) throw invalid(field, text, `${least} to ${MAX_NAR_SIZE} bytes`)
  return size
}

function parseReferences(text: string): string[] {
  const names = text.split(' ').filter(name => name !== '')
  if (names.length > MAX_REFERENCES) throw invalid('References', `${names.length} of them`, `at most ${MAX_REFERENCES}`)
  return [...new Set(names)].sort(compareBytes)
}

function parseSignatures(texts: readonly string[]): string[] {
  if (texts.length > MAX_SIGNATURES) throw invalid('Sig', `${texts.length} of them`, `at most ${MAX_SIGNATURES}`)
  for (const text of texts) if (tryParseSignature(text) === undefined) throw invalid('Sig', text, 'a key name, a colon and 64 bytes in base64')
  return [...new Set(texts)].sort(compareBytes)
}

function parseCa(text: string): ContentAddress {
  try {
    return parseContentAddress(text)
  } catch (error) {
    throw new NarvikError('invalid-argument', `Cannot read CA of a narinfo: found ${quote(text)}, needed a content address`, { cause: error })
  }
}

function baseNameOf(path: string, storeDir: string): string {
  const parsed = tryParseStorePath(path, storeDir)
  if (parsed === undefined) throw invalid('a path', path, `a store path in ${storeDir}`)
  return parsed.baseName
}

function invalid(field: string, found: string | null, needed: string): NarvikError {
  return new NarvikError('invalid-argument', `Cannot read ${field} of a narinfo: found ${found === null ? 'none' : quote(found)}, needed ${needed}`)
}
