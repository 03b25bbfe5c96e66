import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, open, rm } from 'node:fs/promises'
import path from 'node:path'
import { generateKeyPair, generateKeyPairFromSeed, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { fromSystemError, isNarvikError, NarvikError, systemCode } from '../errors.ts'

/** An Ed25519 key in libp2p's protobuf form: four bytes of tags and lengths, then 64 bytes of key. */
const KEY_BYTES = 68
const NEW_KEY_HINT = 'Bring the file back from a backup, or remove it: the host then gets a new key and a new peer id'

/**
 * The host's private key, libp2p's protobuf form, from `file`; a new one is made, durably and with mode 0600, where there is no file.
 * @throws NarvikError `refused` where other users may read the file, `invalid-config` where it holds no Ed25519 key.
 */
export async function loadIdentity(file: string): Promise<Uint8Array> {
  try {
    return await readIdentity(file)
  } catch (error) {
    if (!isNarvikError(error, 'not-found')) throw error
  }
  await writeIdentity(file, await newIdentity())
  // Whoever made the file first has won; read what is there now.
  return readIdentity(file)
}

/** A key that no file keeps. */
export async function newIdentity(): Promise<Uint8Array> {
  return privateKeyToProtobuf(await generateKeyPair('Ed25519'))
}

/** The peer id of a private key. */
export function peerIdOf(identity: Uint8Array): string {
  return peerIdFromPrivateKey(privateKeyFromProtobuf(identity)).toString()
}

async function readIdentity(file: string): Promise<Uint8Array> {
  const action = `read the identity ${file}`
  let handle: FileHandle
  try {
    // A fifo in the file's place must not hold up the start.
    handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw fromSystemError(error, action)
  }
  try {
    await checkFile(handle, action)
    const bytes = Buffer.alloc(KEY_BYTES + 1)
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0)
    return await checkKey(Uint8Array.from(bytes.subarray(0, bytesRead)), action)
  } finally {
    await handle.close()
  }
}

async function checkFile(handle: FileHandle, action: string): Promise<void> {
  const stat = await handle.stat()
  if (!stat.isFile()) throw new NarvikError('invalid-config', `Cannot ${action}: found something that is no file, needed a file of ${KEY_BYTES} bytes`)
  if ((stat.mode & 0o077) === 0) return
  throw new NarvikError('refused', `Cannot ${action}: found mode 0${(stat.mode & 0o777).toString(8)}, needed 0600`, {
    hint: 'Others may have read the key: run chmod 600 on the file if they can not have, else remove it so that a new one is made',
  })
}

async function checkKey(bytes: Uint8Array, action: string): Promise<Uint8Array> {
  if (bytes.length !== KEY_BYTES) {
    const found = bytes.length > KEY_BYTES ? `more than ${KEY_BYTES}` : String(bytes.length)
    throw new NarvikError('invalid-config', `Cannot ${action}: found ${found} bytes, needed ${KEY_BYTES}`, { hint: NEW_KEY_HINT })
  }
  if (await isKey(bytes)) return bytes
  throw new NarvikError('invalid-config', `Cannot ${action}: found a damaged or another kind of key, needed an Ed25519 key`, { hint: NEW_KEY_HINT })
}

/** Whether the bytes are what is written for their own seed: the file holds the public key too, which may not be another's. */
async function isKey(bytes: Uint8Array): Promise<boolean> {
  const again = await generateKeyPairFromSeed('Ed25519', bytes.slice(4, 36))
  return Buffer.compare(privateKeyToProtobuf(again), bytes) === 0
}

async function writeIdentity(file: string, identity: Uint8Array): Promise<void> {
  const draft = `${file}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(draft, 'wx', 0o600)
    try {
      await handle.writeFile(identity)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await keepFirst(draft, file)
    await syncDirectory(path.dirname(file))
  } catch (error) {
    throw fromSystemError(error, `write the identity ${file}`)
  } finally {
    await rm(draft, { force: true })
  }
}

/** Gives the draft its name unless the name is taken: unlike a rename, a link never replaces another process' key. */
async function keepFirst(draft: string, file: string): Promise<void> {
  try {
    await link(draft, file)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
