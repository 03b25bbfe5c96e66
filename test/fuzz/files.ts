import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeyPairFromSeed, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { loadConfig } from '../../src/config.ts'
import { FLEET_KEY_BYTES, readFleetKey } from '../../src/fleet-key.ts'
import { loadIdentity } from '../../src/p2p/identity.ts'
import { decodeArrivals } from '../../src/store/arrivals.ts'
import { readProgressFile } from '../../src/store/progress.ts'
import { decodeProgress } from '../../src/tasks/swarm/progress.ts'
import { CHUNKS, DIGEST, eachOurs, jsonOf, ours, text } from './decoding.ts'
import type { Target } from './engine.ts'

const SECRET = Buffer.from(Array.from({ length: FLEET_KEY_BYTES }, (_, index) => index * 37 % 251))
const IDENTITY = privateKeyToProtobuf(await generateKeyPairFromSeed('Ed25519', new Uint8Array(32).fill(4)))

/** A directory in memory, where there is one: a disk's file system writes out what replaces a file, which takes longer than all that is tried. */
const SCRATCH = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

/** A file of its own with what is tried; it goes with the process. */
function triedFile(name: string): { readonly file: string, readonly write: (bytes: Uint8Array) => void } {
  const directory = mkdtempSync(join(SCRATCH, 'narvik-fuzz-'))
  process.on('exit', () => { rmSync(directory, { recursive: true, force: true }) })
  const file = join(directory, name)
  return { file, write: bytes => { writeFileSync(file, bytes, { mode: 0o600 }) } }
}

/** As content of the file, as the file, and as the record that is kept beside it. */
export function progress(): Target {
  const { file, write } = triedFile('progress.json')
  const content = { kind: 'chunks', offset: 1, manifestDigest: DIGEST, voucher: null, recordBy: null, proven: Buffer.alloc(125).toString('base64'), books: { peers: [], reused: [], zeros: 0 } }
  return {
    seeds: () => [text(JSON.stringify(content)), text(JSON.stringify({ version: 1, ...content })), Buffer.of(0, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0), Buffer.of(231, 3, 0, 0, 255, 255, 255, 255), Buffer.of(0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0)],
    run: eachOurs([
      bytes => { decodeProgress(jsonOf(bytes), CHUNKS) },
      async bytes => {
        write(bytes)
        const found = await readProgressFile(file)
        if (found !== undefined && !(found.offset >= 0)) throw new Error('an offset that is none')
        decodeProgress(found, CHUNKS)
      },
      checkArrivals,
    ]),
  }
}

/** What came since the progress was written. */
function checkArrivals(bytes: Uint8Array): void {
  let next = 0
  for (const { first, count } of decodeArrivals(Buffer.from(bytes), CHUNKS)) {
    if (first < next || count < 1 || first + count > CHUNKS) throw new Error(`found ${count} chunks at ${first}, needed some from ${next} to ${CHUNKS}`)
    next = first + count
  }
}

/** The key of a fleet, and the identity of a host. */
export function secretFiles(): Target {
  const fleet = triedFile('fleet.key')
  const identity = triedFile('identity.key')
  return {
    seeds: () => [Buffer.from(`${SECRET.toString('hex')}\n`), SECRET, Buffer.from('correct horse battery staple 1234'), IDENTITY],
    most: 256,
    run: eachOurs([
      async bytes => {
        fleet.write(bytes)
        if ((await readFleetKey(fleet.file)).length !== FLEET_KEY_BYTES) throw new Error('a key of another length')
      },
      async bytes => {
        identity.write(bytes)
        if (Buffer.compare(await loadIdentity(identity.file), bytes) !== 0) throw new Error('an identity that is not in the file')
      },
    ]),
  }
}

export function config(): Target {
  const { file, write } = triedFile('narvik.toml')
  const example = readFileSync(new URL('../../config/narvik.example.toml', import.meta.url), 'utf8')
  const settings = example.split('\n').filter(line => /^#? ?\[|^# ?[a-z_]+ = |^[a-z_]+ = /.test(line)).map(line => line.replace(/^# ?/, '')).join('\n')
  return {
    seeds: () => [text(settings), text('listen = ["/ip4/127.0.0.1/tcp/0"]\n[fetch]\nat_once = 4\n'), text('data_dir = "/srv/a"\n')],
    most: 8192,
    run: ours(bytes => {
      write(bytes)
      loadConfig({ file, env: {}, uid: 0 })
    }),
  }
}
