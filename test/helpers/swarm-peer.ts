import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

const FIXTURE = fileURLToPath(new URL('../fixtures/swarm-peer.ts', import.meta.url))

export interface SwarmPeerOptions {
  /** Where the tree of the image is. */
  readonly tree: string
  readonly bootstrap?: readonly string[]
  readonly bytesPerSecond?: number
  /** Bytes after which it sends no more until it is released. */
  readonly holdAfter?: number
  /** Whether it flips a byte of every chunk. */
  readonly lies?: boolean
}

/** A host in a process of its own that has one image and sends it as the test wants. */
export interface SwarmPeer {
  readonly peerId: string
  readonly addresses: readonly string[]
  readonly narHash: string
  readonly kill: () => Promise<void>
  readonly release: () => void
}

export async function startSwarmPeer(options: SwarmPeerOptions): Promise<SwarmPeer> {
  const child = spawn(process.execPath, [FIXTURE], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  onTestFinished(kill)
  child.stdin.end(`${JSON.stringify(options)}\n`)
  const [line] = await once(child.stdout, 'data') as [Buffer]
  return { ...JSON.parse(line.toString()) as Pick<SwarmPeer, 'peerId' | 'addresses' | 'narHash'>, kill, release: () => { child.kill('SIGUSR2') } }
}
