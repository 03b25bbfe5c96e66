import { createHash, randomBytes } from 'node:crypto'
import { NarvikError } from './errors.ts'
import { createSecretFile, readSecretFile, type SecretFile } from './secret-file.ts'

/** Bytes of a fleet key. */
export const FLEET_KEY_BYTES = 32
/** Different bytes that 32 from a generator have at the least; fewer come once in some ten thousand million keys. */
const MIN_DIFFERENT_BYTES = 16

/**
 * Makes a fleet key and writes it to a file of 64 hex characters, mode 0600.
 * @throws NarvikError `conflict` where the file is there: a key that is overwritten is lost to the whole fleet.
 */
export async function createFleetKey(file: string): Promise<Uint8Array> {
  const key = randomBytes(FLEET_KEY_BYTES)
  if (await createSecretFile(secretOf(file), Buffer.from(`${key.toString('hex')}\n`))) return key
  throw new NarvikError('conflict', `Cannot write the fleet key ${file}: found a file of that name, needed a free one`, { hint: `To see which key it has: narvik fleet show ${file}` })
}

/**
 * The key in a file: 64 hex characters, or 32 bytes as they are.
 * @throws NarvikError `not-found`, `unreadable`, `refused` where others may read the file, `invalid-config` where it holds something else.
 */
export async function readFleetKey(file: string): Promise<Uint8Array> {
  const bytes = await readSecretFile(secretOf(file), 2 * FLEET_KEY_BYTES + 2)
  const text = bytes.toString('latin1').trim()
  const key = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, 'hex') : bytes
  if (key.length !== FLEET_KEY_BYTES) throw unfit(file, bytes.length > 2 * FLEET_KEY_BYTES + 1 ? 'more than a key' : `${bytes.length} bytes`)
  if (key.every(byte => byte >= 0x20 && byte < 0x7f)) throw unfit(file, 'a text, such as a passphrase')
  if (new Set(key).size < MIN_DIFFERENT_BYTES) throw unfit(file, 'bytes that are not random')
  return Uint8Array.from(key)
}

/** What people and logs may be shown of a key: it says which one it is, and nothing else. */
export function fleetFingerprint(key: Uint8Array): string {
  return createHash('sha256').update('narvik fleet fingerprint 1\0').update(key).digest('hex').slice(0, 32)
}

function secretOf(file: string): SecretFile {
  return {
    file,
    what: 'fleet key',
    hints: {
      absent: `Copy it from a host of the fleet, or make a new fleet with: narvik fleet create ${file}`,
      shared: 'Others may have read the key: run chmod 600 on the file if they can not have, else make a new key and change over to it',
    },
  }
}

/** The message has nothing of what was found: it may be somebody's passphrase. */
function unfit(file: string, found: string): NarvikError {
  return new NarvikError('invalid-config', `Cannot use the fleet key ${file}: found ${found}, needed ${FLEET_KEY_BYTES} bytes from a generator, or their ${2 * FLEET_KEY_BYTES} hex characters`, {
    hint: `Make one with: narvik fleet create ${file}.new`,
  })
}
