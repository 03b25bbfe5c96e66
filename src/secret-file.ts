import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, open, rm } from 'node:fs/promises'
import path from 'node:path'
import { fromSystemError, NarvikError, systemCode } from './errors.ts'

export interface SecretFile {
  readonly file: string
  /** What it holds, as in `Cannot read the <what> <file>`. */
  readonly what: string
  readonly hints: {
    /** Where the file is not there. */
    readonly absent: string
    /** Where others than its owner may have read it. */
    readonly shared: string
  }
}

/**
 * What is in a file that only its owner may read, up to `maxBytes` and one more.
 * @throws NarvikError `not-found`, `unreadable`; `refused` where other users may read it; `invalid-config` where it is no file.
 */
export async function readSecretFile(secret: SecretFile, maxBytes: number): Promise<Buffer> {
  const action = actionOf('read', secret)
  const handle = await openSecret(secret, action)
  try {
    await checkFile(handle, secret, action)
    const bytes = Buffer.alloc(maxBytes + 1)
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0)
    return bytes.subarray(0, bytesRead)
  } catch (error) {
    throw fromSystemError(error, action)
  } finally {
    await handle.close()
  }
}

/** Makes the file, durably and with mode 0600; false, and nothing is changed, where there is something of that name. No other process sees a part of it. */
export async function createSecretFile(secret: Pick<SecretFile, 'file' | 'what'>, bytes: Uint8Array): Promise<boolean> {
  const { file } = secret
  const draft = `${file}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(draft, 'wx', 0o600)
    try {
      // The umask may have taken something away, and never adds.
      await handle.chmod(0o600)
      await handle.writeFile(bytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    const first = await keepFirst(draft, file)
    await syncDirectory(path.dirname(file))
    return first
  } catch (error) {
    throw systemCode(error) === 'ENOENT' ? noDirectory(secret, error) : fromSystemError(error, actionOf('write', secret))
  } finally {
    await rm(draft, { force: true })
  }
}

/** An older systemd makes no /etc/credstore, for one. */
function noDirectory(secret: Pick<SecretFile, 'file' | 'what'>, cause: unknown): NarvikError {
  const directory = path.dirname(secret.file)
  return new NarvikError('not-found', `Cannot ${actionOf('write', secret)}: found no directory ${directory}, needed it`, { hint: `Make it: mkdir -p -m 0700 ${directory}`, cause })
}

function actionOf(verb: 'read' | 'write', { file, what }: Pick<SecretFile, 'file' | 'what'>): string {
  return `${verb} the ${what} ${file}`
}

async function openSecret({ file, hints }: SecretFile, action: string): Promise<FileHandle> {
  try {
    // A fifo in the file's place must not hold up the start.
    return await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') throw new NarvikError('not-found', `Cannot ${action}: found no such file, needed it`, { hint: hints.absent, cause: error })
    throw fromSystemError(error, action)
  }
}

async function checkFile(handle: FileHandle, { file, hints }: SecretFile, action: string): Promise<void> {
  const stat = await handle.stat()
  if (!stat.isFile()) throw new NarvikError('invalid-config', `Cannot ${action}: found something that is no file, needed a file`)
  // What systemd made for this service is for it alone: where it grants that by an ACL, the group's bits are the ACL's mask.
  const credentials = process.env.CREDENTIALS_DIRECTORY
  const shared = credentials !== undefined && path.dirname(file) === credentials ? 0o037 : 0o077
  if ((stat.mode & shared) === 0) return
  throw new NarvikError('refused', `Cannot ${action}: found mode 0${(stat.mode & 0o777).toString(8)}, needed 0600`, { hint: hints.shared })
}

/** Gives the draft its name unless the name is taken: unlike a rename, a link never replaces another process' key. */
async function keepFirst(draft: string, file: string): Promise<boolean> {
  try {
    await link(draft, file)
    return true
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
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
