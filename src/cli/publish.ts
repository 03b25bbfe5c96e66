import { resolve } from 'node:path'
import type { ControlClient } from '../control/client.ts'
import { NarvikError } from '../errors.ts'
import { NarHash } from '../image/nar-hash.ts'
import { type NameRecord, publisherId, writeNameRecord } from '../image/name-record.ts'
import { parseRef, refText } from '../image/ref.ts'
import { formatPublicKey, parseSecretKey, publicKeyOf, signBytes, type SecretKey } from '../nix/signature.ts'
import { readSecretFile } from '../secret-file.ts'
import type { Action } from './outcome.ts'
import { publishedNameView } from './views.ts'

const DAY_MS = 24 * 3600 * 1000
/** Bytes of a key file: more than any key has. */
const MAX_KEY_FILE_BYTES = 1024

export interface PublishOptions {
  readonly name: string
  /** File with a secret key, as `nix key generate-secret` writes it. */
  readonly key: string
  /** Days for which the name is valid. */
  readonly valid: number
}

/** Signs here, with the rights of whoever runs the command: the daemon gets the record and never the key. */
export function publish(ref: string, { name, key: file, valid }: PublishOptions): Action {
  const checked = refText(parseRef(ref))
  return async ({ client }) => {
    const key = await readKey(resolve(file))
    const control = client()
    const { narHash } = await control.show(checked)
    const record = await nextRecord(control, { name, narHash: NarHash.parse(narHash), publisher: formatPublicKey(publicKeyOf(key)), valid })
    const value = writeNameRecord(record, message => signBytes(message, key))
    const published = await control.publish({ record: Buffer.from(value).toString('base64') })
    return { json: published, text: paint => publishedNameView(published, paint) }
  }
}

async function nextRecord(control: ControlClient, { name, narHash, publisher, valid }: Pick<NameRecord, 'name' | 'narHash' | 'publisher'> & { readonly valid: number }): Promise<NameRecord> {
  const known = (await control.names()).find(one => one.name === name && publisherId(one.publisher) === publisherId(publisher))
  const now = Date.now()
  return { version: 1, publisher, name, narHash, seq: Math.max(now, (known?.seq ?? 0) + 1), publishedAt: now, expires: now + valid * DAY_MS }
}

async function readKey(file: string): Promise<SecretKey> {
  const hints = {
    absent: 'Make one with: (umask 077; nix --extra-experimental-features nix-command key generate-secret --key-name NAME > FILE)',
    shared: 'Others may have read the key: run chmod 600 on the file if they can not have, else make a new one',
  }
  const bytes = await readSecretFile({ file, what: 'secret key', hints }, MAX_KEY_FILE_BYTES)
  try {
    return parseSecretKey(bytes.toString('latin1'))
  } catch (error) {
    throw new NarvikError('invalid-config', `Cannot use the secret key ${file}: found no key, needed one as Nix writes it`, { hint: hints.absent, cause: error })
  }
}
