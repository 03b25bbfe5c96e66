import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface ThrowAwayStore {
  /** Holds the store and everything else that a test leaves. */
  readonly root: string
  readonly storeDir: string
  /** What makes every Nix program use this store. */
  readonly env: Record<string, string>
  /** Runs a Nix program on the store and returns what it printed, without the last newline. */
  run(program: string, ...args: string[]): string
  /** Makes a file below `root`. */
  file(name: string, contents: string): string
  remove(): void
}

/** A store of the real Nix in a temporary directory; neither /nix nor the user's own files are touched. */
export function throwAwayStore(): ThrowAwayStore {
  const root = mkdtempSync(join(tmpdir(), 'narvik-nix-'))
  const storeDir = join(root, 'store')
  mkdirSync(storeDir)
  const env = {
    NIX_STORE_DIR: storeDir,
    NIX_STATE_DIR: join(root, 'var'),
    NIX_LOG_DIR: join(root, 'log'),
    NIX_CONF_DIR: join(root, 'etc'),
    // No build users: as root, Nix would have builds done by users that a machine need not have.
    NIX_CONFIG: 'sandbox = false\nbuild-users-group =\nsubstitute = false',
    NIX_REMOTE: '',
    HOME: join(root, 'home'),
    XDG_CACHE_HOME: join(root, 'cache'),
  }
  return {
    root,
    storeDir,
    env,
    run: (program, ...args) => execFileSync(program, args, {
      env: { ...process.env, ...env, NIX_CONFIG: `${env.NIX_CONFIG}\nexperimental-features = nix-command` },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: root,
    }).replace(/\n$/, ''),
    file: (name, contents) => {
      writeFileSync(join(root, name), contents)
      return join(root, name)
    },
    remove: () => {
      // What is in a store is read-only, also to its owner.
      execFileSync('chmod', ['-R', 'u+w', root])
      rmSync(root, { recursive: true, force: true })
    },
  }
}
