import { createHash } from 'node:crypto'
import { NarvikError } from '../errors.ts'
import { encodeNix32 } from '../image/nix32.ts'
import { quote } from './quote.ts'
import type { NixHash } from './hash.ts'

export const DEFAULT_STORE_DIR = '/nix/store'
export const MAX_STORE_NAME_CHARACTERS = 211

export interface StorePath {
  /** `<hash part>-<name>` */
  readonly baseName: string
  /** 32 characters of nix32. */
  readonly hashPart: string
  readonly name: string
}

const STORE_DIR = /^(?:\/(?!\.{1,2}(?:\/|$))[\x21-\x2e\x30-\x7e]+)+$/
const BASE_NAME = /^([0-9a-df-np-sv-z]{32})-([0-9a-zA-Z+\-._?=]{1,211})$/
const DOTTED_NAME = /^\.\.?(?:-|$)/

/**
 * Takes a full store path apart. Names that some Nix allows are allowed (a leading dot, for instance).
 * @throws NarvikError `invalid-argument`.
 */
export function parseStorePath(path: string, storeDir = DEFAULT_STORE_DIR): StorePath {
  const found = tryParseStorePath(path, storeDir)
  if (found !== undefined) return found
  throw new NarvikError('invalid-argument', `Cannot read a store path: found ${quote(path)}, needed ${storeDir}/<32 nix32 characters>-<name>`)
}

export function tryParseStorePath(path: string, storeDir = DEFAULT_STORE_DIR): StorePath | undefined {
  return path.startsWith(`${storeDir}/`) ? tryParseBaseName(path.slice(storeDir.length + 1)) : undefined
}

/** Takes `<hash part>-<name>` apart: a store path without its directory. */
export function tryParseBaseName(baseName: string): StorePath | undefined {
  const match = BASE_NAME.exec(baseName)
  if (match?.[1] === undefined || match[2] === undefined || match[2] === '.' || match[2] === '..') return undefined
  return { baseName, hashPart: match[1], name: match[2] }
}

/** Whether the text is a plain absolute path that a store may have: no `.` or `..`, no double or final slash. */
export function isStoreDir(text: string): boolean {
  return text.length <= 1024 && STORE_DIR.test(text)
}

/**
 * Whether every Nix takes this name for a new path: the strictest rule of all generations, save the leading dot that
 * 2.19 and 2.20 alone refuse.
 */
export function isStoreName(name: string): boolean {
  return name.length <= MAX_STORE_NAME_CHARACTERS && /^[0-9a-zA-Z+\-._?=]+$/.test(name) && !DOTTED_NAME.test(name)
}

export interface SourcePathInput {
  readonly name: string
  /** SHA-256 of the NAR; for a path that refers to itself, of the NAR modulo its own hash part. */
  readonly narSha256: Uint8Array
  /** Full paths, without the path itself. */
  readonly references?: readonly string[]
  readonly selfReference?: boolean
  readonly storeDir?: string
}

/** Where `nix store add-path` puts a tree, and any other output addressed by the SHA-256 of its NAR. */
export function sourceStorePath({ name, narSha256, references = [], selfReference = false, storeDir }: SourcePathInput): string {
  return makeStorePath([...typeWithReferences('source', references), ...(selfReference ? ['self'] : [])].join(':'), narSha256, name, storeDir)
}

export interface FixedPathInput {
  readonly name: string
  /** `nar` with sha256 is not of this kind: see `sourceStorePath`. */
  readonly method: 'flat' | 'nar' | 'git'
  readonly hash: NixHash
  readonly storeDir?: string
}

/** Where a fixed output goes that is not a SHA-256 NAR: flat files, other algorithms, git trees. It has no references. */
export function fixedStorePath({ name, method, hash, storeDir }: FixedPathInput): string {
  const prefix = { flat: '', nar: 'r:', git: 'git:' }[method]
  const inner = createHash('sha256').update(`fixed:out:${prefix}${hash.algorithm}:${Buffer.from(hash.bytes).toString('hex')}:`).digest()
  return makeStorePath('output:out', inner, name, storeDir)
}

export interface TextPathInput {
  readonly name: string
  /** SHA-256 of the file's contents. */
  readonly sha256: Uint8Array
  readonly references?: readonly string[]
  readonly storeDir?: string
}

/** Where `builtins.toFile` and derivations go. */
export function textStorePath({ name, sha256, references = [], storeDir }: TextPathInput): string {
  return makeStorePath(typeWithReferences('text', references).join(':'), sha256, name, storeDir)
}

function typeWithReferences(type: string, references: readonly string[]): string[] {
  return [type, ...[...new Set(references)].sort(compareBytes)]
}

/** The order of Nix's sets of strings: by bytes. Store paths are ASCII, where code units are bytes. */
export function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** nix: makeStorePath in src/libstore/store-dir-config.cc. */
function makeStorePath(type: string, inner: Uint8Array, name: string, storeDir = DEFAULT_STORE_DIR): string {
  if (!isStoreName(name)) {
    throw new NarvikError('invalid-argument', `Cannot make a store path: found the name ${quote(name)}, needed 1 to ${MAX_STORE_NAME_CHARACTERS} of 0-9 a-z A-Z + - . _ ? =`)
  }
  if (!isStoreDir(storeDir)) throw new NarvikError('invalid-argument', `Cannot make a store path: found the store ${quote(storeDir)}, needed an absolute path`)
  const fingerprint = `${type}:sha256:${Buffer.from(inner).toString('hex')}:${storeDir}:${name}`
  const digest = createHash('sha256').update(fingerprint).digest()
  return `${storeDir}/${encodeNix32(fold(digest, 20))}-${name}`
}

function fold(digest: Uint8Array, length: number): Uint8Array {
  const folded = new Uint8Array(length)
  digest.forEach((byte, index) => { folded[index % length] = (folded[index % length] ?? 0) ^ byte })
  return folded
}
