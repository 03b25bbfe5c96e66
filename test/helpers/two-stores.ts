import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { temporaryDirectory } from './fleet.ts'

/** A real Nix store, with what makes a Nix program or a daemon of Narvik use it. */
export interface RealStore {
  readonly env: Readonly<Record<string, string>>
  /** Runs a Nix program on the store; a failure throws with what it said. */
  run(program: string, ...args: string[]): Promise<string>
}

export interface TwoStores {
  /** The text that the paths of both begin with. */
  readonly storeDir: string
  readonly dir: string
  /** Where things are built. */
  readonly sender: RealStore
  /** Empty; its files are below a directory of its own, and it has its own database. Nix and Narvik trust `secretKey` there. */
  readonly receiver: RealStore
  /** The key that the receiver trusts, in a file. */
  readonly secretKey: string
}

/**
 * Two real stores on one machine whose paths are written alike, as on two hosts: the sender's is at its store directory,
 * the receiver's is a store below another root, which keeps the text of its paths.
 */
export async function twoStores(): Promise<TwoStores> {
  const dir = await temporaryDirectory()
  const storeDir = join(dir, 'sender', 'store')
  const root = join(dir, 'receiver')
  await mkdir(storeDir, { recursive: true })
  await mkdir(root)
  const secretKey = join(dir, 'fleet.key')
  await execa('sh', ['-c', `nix key generate-secret --key-name fleet-1 > ${secretKey}`], { env: { ...environment(dir, storeDir, ''), NIX_REMOTE: '' } })
  const { stdout: publicKey } = await execa('nix', ['key', 'convert-secret-to-public'], { inputFile: secretKey, env: environment(dir, storeDir, '') })
  const sender = realStore({ ...environment(dir, storeDir, publicKey), NIX_REMOTE: '' })
  const receiver = realStore({ ...environment(dir, storeDir, publicKey), NIX_REMOTE: root, NARVIK_TRUST_KEYS: publicKey })
  await receiver.run('nix', 'store', 'ping')
  return { dir, storeDir, sender, receiver, secretKey }
}

/** What a derivation is made of where there is no nixpkgs. */
export const DERIVATION = 'name: script: derivation { inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "PATH=/usr/bin:/bin\\n${script}" ]; }'

function environment(dir: string, storeDir: string, publicKey: string): Record<string, string> {
  return {
    NIX_STORE_DIR: storeDir, NIX_STATE_DIR: join(dir, 'state'), NIX_LOG_DIR: join(dir, 'log'), NIX_CONF_DIR: join(dir, 'etc'),
    NIX_CONFIG: [
      'experimental-features = nix-command ca-derivations', 'sandbox = false', 'build-users-group =', 'substitute = false',
      ...(publicKey === '' ? [] : [`trusted-public-keys = ${publicKey}`]),
    ].join('\n'),
    HOME: join(dir, 'home'), XDG_CACHE_HOME: join(dir, 'cache'),
  }
}

function realStore(env: Record<string, string>): RealStore {
  return {
    env,
    run: async (program, ...args) => (await execa(program, args, { env, cwd: '/' })).stdout,
  }
}
