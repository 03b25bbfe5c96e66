import { generateKeyPair, generateKeyPairFromSeed, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { isNarvikError, NarvikError } from '../errors.ts'
import { createSecretFile, readSecretFile, type SecretFile } from '../secret-file.ts'

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
  await createSecretFile(secretOf(file), await newIdentity())
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
  return checkKey(Uint8Array.from(await readSecretFile(secretOf(file), KEY_BYTES)), `read the identity ${file}`)
}

function secretOf(file: string): SecretFile {
  const shared = 'Others may have read the key: run chmod 600 on the file if they can not have, else remove it so that a new one is made'
  return { file, what: 'identity', hints: { absent: NEW_KEY_HINT, shared } }
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
