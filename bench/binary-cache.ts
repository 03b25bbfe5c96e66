import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { removeTree } from '../src/nar/remove.ts'
import { startNginx } from './nginx.ts'

/** A plain-HTTP binary cache on loopback, as a fleet has one: nginx over the files that `nix copy` made, uncompressed. */
export class BinaryCache {
  readonly storePath: string
  readonly #dir: string
  readonly #env: Readonly<Record<string, string>>
  readonly #nginx: ChildProcess
  readonly #url: string
  #copies = 0

  private constructor(dir: string, env: Readonly<Record<string, string>>, serving: { storePath: string, nginx: ChildProcess, url: string }) {
    this.#dir = dir
    this.#env = env
    this.storePath = serving.storePath
    this.#nginx = serving.nginx
    this.#url = serving.url
  }

  /** Has a tree in the cache. */
  static async serve(path: string): Promise<BinaryCache> {
    return BinaryCache.#serve(env => nix(env, 'store', 'add-path', '--name', 'image', path))
  }

  /** Has what a Nix expression builds in the cache, with everything that it refers to. */
  static async serveBuilt(expression: string): Promise<BinaryCache> {
    return BinaryCache.#serve(env => nixProgram('nix-build', env, '--no-out-link', '-E', expression))
  }

  static async #serve(make: (env: Readonly<Record<string, string>>) => Promise<string>): Promise<BinaryCache> {
    const dir = await mkdtemp(join(tmpdir(), 'narvik-bench-cache-'))
    const env = environment(dir)
    await mkdir(join(dir, 'store'))
    const storePath = await make(env)
    await nix(env, 'copy', '--to', `file://${dir}/cache?compression=none`, storePath)
    const port = await freePort()
    const nginx = await startNginx({ dir: join(dir, 'nginx'), root: join(dir, 'cache'), listen: `127.0.0.1:${port}`, answers: () => answers(port) })
    return new BinaryCache(dir, env, { storePath, nginx, url: `http://127.0.0.1:${port}` })
  }

  /** What makes a Nix program, or a daemon, use the store that the cache was made of. */
  get env(): Readonly<Record<string, string>> {
    return this.#env
  }

  /** The paths that `storePath` needs, with itself. */
  async closure(): Promise<string[]> {
    return (await nixProgram('nix-store', this.#env, '--query', '--requisites', this.storePath)).split('\n')
  }

  /** Copies the path, with everything that it refers to, into a store of its own, and resolves with the milliseconds that it took. */
  async copy(): Promise<number> {
    const root = join(this.#dir, `copy-${this.#copies++}`)
    const started = performance.now()
    await nix(this.#env, 'copy', '--no-check-sigs', '--from', this.#url, '--to', `local?root=${root}`, this.storePath)
    const took = performance.now() - started
    await removeTree(root)
    return took
  }

  async stop(): Promise<void> {
    if (this.#nginx.exitCode === null) {
      this.#nginx.kill('SIGTERM')
      await once(this.#nginx, 'exit')
    }
    await removeTree(this.#dir)
  }
}

/** Stores, state and caches of its own: what is on this machine stays as it is. */
function environment(dir: string): Record<string, string> {
  return {
    NIX_STORE_DIR: join(dir, 'store'), NIX_STATE_DIR: join(dir, 'var'), NIX_LOG_DIR: join(dir, 'log'), NIX_CONF_DIR: join(dir, 'etc'), NIX_REMOTE: '',
    NIX_CONFIG: 'experimental-features = nix-command\nrequire-sigs = false\nsubstitute = false\nsandbox = false\nbuild-users-group =',
    HOME: join(dir, 'home'), XDG_CACHE_HOME: join(dir, 'xdg'),
  }
}

function nix(env: Readonly<Record<string, string>>, ...args: string[]): Promise<string> {
  return nixProgram('nix', env, ...args)
}

async function nixProgram(program: string, env: Readonly<Record<string, string>>, ...args: string[]): Promise<string> {
  const { failed, stdout, stderr } = await run(program, args, { env })
  if (failed) throw new Error(`Cannot run ${program} ${args.join(' ')}: ${stderr}`)
  return stdout
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('Cannot find a free port')
  return address.port
}

async function run(program: string, args: readonly string[], { env = {} }: { env?: Readonly<Record<string, string>> } = {}): Promise<{ failed: boolean, stdout: string, stderr: string }> {
  const { failed, stdout, stderr } = await execa(program, args, { env, reject: false })
  return { failed, stdout, stderr }
}
