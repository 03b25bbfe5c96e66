import { NarvikError } from '../errors.ts'
import { NarHash } from '../image/nar-hash.ts'
import type { NixPathInfo } from '../image/path-info.ts'
import { formatContentAddress, parseContentAddress } from './content-address.ts'
import { isHashAlgorithm, tryParseHash, type NixHash } from './hash.ts'
import { quote, show } from './quote.ts'
import { compareBytes, DEFAULT_STORE_DIR, isStoreDir, tryParseBaseName, tryParseStorePath } from './store-path.ts'

type Json = Readonly<Record<string, unknown>>

/**
 * Reads what `nix path-info --json` printed, of any generation: an array (up to 2.18, and Lix), an object by path (2.19 on,
 * `--json-format 1`), or a versioned document (`--json-format 2` and `3`). A path that is not valid has the value null.
 * @throws NarvikError `nix-failed` that shows what was found, where the text has another shape.
 */
export function parsePathInfo(text: string, storeDir = DEFAULT_STORE_DIR): Map<string, NixPathInfo | null> {
  const document = parseJson(text)
  if (Array.isArray(document)) return fromArray(document, storeDir)
  if (!isObject(document)) throw unexpected('an answer', document, 'an array or an object')
  if (typeof document['version'] === 'number' && isObject(document['info'])) return fromDocument(document, document['info'])
  return fromObject(document, storeDir)
}

/**
 * Reads one entry of the answer.
 * @param context how entries name store paths: `base`, without the directory, in formats 2 and 3.
 */
export function parsePathInfoEntry(path: string, entry: unknown, context: { storeDir: string, names: 'full' | 'base' }): NixPathInfo {
  if (!isObject(entry)) throw unexpected(`the entry of ${path}`, entry, 'an object')
  const fail = (field: string, needed: string): NarvikError => unexpected(`${field} of ${path}`, entry[field], needed)
  const toPath = (field: string, value: unknown): string => {
    const full = typeof value === 'string' && context.names === 'base' ? `${context.storeDir}/${value}` : value
    if (typeof full === 'string' && tryParseStorePath(full, context.storeDir) !== undefined) return full
    throw fail(field, `store paths ${context.names === 'base' ? 'without the directory' : `in ${context.storeDir}`}`)
  }
  const narHash = parseStructuredHash(entry['narHash'])
  if (narHash?.algorithm !== 'sha256') throw fail('narHash', 'a sha256 hash')
  const deriver = entry['deriver']
  return {
    path,
    narHash: NarHash.fromBytes(narHash.bytes),
    narSize: parseCount(entry['narSize'], () => fail('narSize', 'a number of bytes')),
    references: parseList(entry['references'], () => fail('references', 'an array')).map(value => toPath('references', value)).sort(compareBytes),
    deriver: isAbsent(deriver) || deriver === '' || deriver === 'unknown-deriver' ? null : toPath('deriver', deriver),
    ca: parseCa(entry['ca'], () => fail('ca', 'a content address')),
    signatures: parseList(entry['signatures'], () => fail('signatures', 'an array')).map(value => parseSignature(value, () => fail('signatures', 'name:base64, or keyName and sig'))),
    registrationTime: isAbsent(entry['registrationTime']) ? null : parseCount(entry['registrationTime'], () => fail('registrationTime', 'seconds since 1970')),
    ultimate: parseBoolean(entry['ultimate'], () => fail('ultimate', 'true or false')),
  }
}

function fromArray(entries: readonly unknown[], storeDir: string): Map<string, NixPathInfo | null> {
  const infos = new Map<string, NixPathInfo | null>()
  for (const entry of entries) {
    const path = isObject(entry) ? entry['path'] : undefined
    if (!isObject(entry) || typeof path !== 'string') throw unexpected('an entry of the array', entry, 'an object with a path')
    checkKey(path, storeDir)
    if (infos.has(path)) throw unexpected('the array', path, 'each path once')
    const valid = entry['valid'] !== false && Object.hasOwn(entry, 'narHash')
    infos.set(path, valid ? parsePathInfoEntry(path, entry, { storeDir, names: 'full' }) : null)
  }
  return infos
}

function fromObject(entries: Json, storeDir: string): Map<string, NixPathInfo | null> {
  return new Map(Object.entries(entries).map(([path, entry]) => {
    checkKey(path, storeDir)
    return [path, entry === null ? null : parsePathInfoEntry(path, entry, { storeDir, names: 'full' })]
  }))
}

function fromDocument(document: Json, info: Json): Map<string, NixPathInfo | null> {
  const { version, storeDir } = document
  if (version !== 2 && version !== 3) throw unexpected('the version', version, '2 or 3')
  if (typeof storeDir !== 'string' || !isStoreDir(storeDir)) throw unexpected('storeDir', storeDir, 'an absolute path')
  return new Map(Object.entries(info).map(([baseName, entry]) => {
    if (tryParseBaseName(baseName) === undefined) throw unexpected('a key', baseName, 'a store path without its directory')
    const path = `${storeDir}/${baseName}`
    return [path, entry === null ? null : parsePathInfoEntry(path, entry, { storeDir, names: 'base' })]
  }))
}

function checkKey(path: string, storeDir: string): void {
  if (tryParseStorePath(path, storeDir) === undefined) throw unexpected('a path', path, `a store path in ${storeDir}`)
}

/** A string, or the object of algorithm, format and hash that some builds between releases printed. */
function parseStructuredHash(value: unknown): NixHash | undefined {
  if (typeof value === 'string') return tryParseHash(value)
  if (!isObject(value)) return undefined
  const { algorithm, hash } = value
  if (typeof algorithm !== 'string' || !isHashAlgorithm(algorithm) || typeof hash !== 'string') return undefined
  return tryParseHash(hash, algorithm)
}

function parseCa(value: unknown, fail: () => NarvikError): string | null {
  if (isAbsent(value) || value === '') return null
  if (typeof value === 'string') {
    try {
      return formatContentAddress(parseContentAddress(value))
    } catch {
      throw fail()
    }
  }
  if (!isObject(value)) throw fail()
  const { method } = value
  const hash = parseStructuredHash(value['hash'])
  if (hash === undefined || (method !== 'text' && method !== 'flat' && method !== 'nar' && method !== 'git')) throw fail()
  return formatContentAddress({ method, hash })
}

function parseSignature(value: unknown, fail: () => NarvikError): string {
  if (typeof value === 'string') return value
  if (!isObject(value) || typeof value['keyName'] !== 'string' || typeof value['sig'] !== 'string') throw fail()
  return `${value['keyName']}:${value['sig']}`
}

function parseList(value: unknown, fail: () => NarvikError): readonly unknown[] {
  if (isAbsent(value)) return []
  if (!Array.isArray(value)) throw fail()
  return value
}

function parseCount(value: unknown, fail: () => NarvikError): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw fail()
  return value
}

function parseBoolean(value: unknown, fail: () => NarvikError): boolean {
  if (isAbsent(value)) return false
  if (typeof value !== 'boolean') throw fail()
  return value
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    throw new NarvikError('nix-failed', `Cannot read the answer of nix path-info: found ${text === '' ? 'nothing' : quote(text)}, needed JSON`, { cause: error })
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined
}

function unexpected(what: string, found: unknown, needed: string): NarvikError {
  return new NarvikError('nix-failed', `Cannot read the answer of nix path-info: found ${show(found)} as ${what}, needed ${needed}`)
}
