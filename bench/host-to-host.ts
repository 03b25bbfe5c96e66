import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ImageJson } from '../src/control/api.ts'
import { removeTree } from '../src/nar/remove.ts'
import { BinaryCache } from './binary-cache.ts'
import { type Host, startPair } from './host.ts'
import { plantDisk } from './plant.ts'
import { median, type Result } from './result.ts'

const GIB = 1024 ** 3

/** The milliseconds of one fetch: whole, and in each phase. */
interface FetchTimes {
  readonly total: number
  readonly phases: Readonly<Record<string, number>>
  /** CPU seconds of the two daemons, which load on the machine hardly changes. */
  readonly cpu: { readonly provider: number, readonly receiver: number }
}

/** One image of 1 GiB from daemon to daemon, beside `nix copy` of the same path from a binary cache; turn by turn, after one of each. */
export async function benchHostToHost({ runs = 3 }: { runs?: number } = {}): Promise<Result[]> {
  const dir = await mkdtemp(join(tmpdir(), 'narvik-bench-'))
  const path = join(dir, 'disk.raw')
  plantDisk(path, GIB)
  const [provider, receiver] = await startPair()
  const cache = await BinaryCache.serve(path)
  try {
    const image = await provider.client.import({ path })
    const fetches: FetchTimes[] = []
    const copies: number[] = []
    for (let run = 0; run <= runs; run++) {
      const fetched = await timeFetch(provider, receiver, image)
      const copied = await cache.copy()
      if (run === 0) continue
      fetches.push(fetched)
      copies.push(copied)
    }
    return report(fetches, copies)
  } finally {
    await Promise.all([provider.stop(), receiver.stop(), cache.stop()])
    await removeTree(dir)
  }
}

async function timeFetch(provider: Host, receiver: Host, { narHash }: ImageJson): Promise<FetchTimes> {
  const { client } = receiver
  const before = [await provider.usage(), await receiver.usage()] as const
  const phases: Record<string, number> = {}
  let phase = 'finding'
  const started = performance.now()
  let since = started
  const enter = (next: string): void => {
    const now = performance.now()
    phases[phase] = (phases[phase] ?? 0) + now - since
    phase = next
    since = now
  }
  await client.fetch({ ref: narHash }, { onProgress: progress => { if (progress.phase !== phase) enter(progress.phase) } })
  enter('done')
  const total = performance.now() - started
  const cpu = {
    provider: (await provider.usage()).cpuSeconds - before[0].cpuSeconds,
    receiver: (await receiver.usage()).cpuSeconds - before[1].cpuSeconds,
  }
  await client.remove(narHash)
  return { total, phases, cpu }
}

function report(fetches: readonly FetchTimes[], copies: readonly number[]): Result[] {
  const total = median(fetches.map(fetch => fetch.total))
  const copy = median(copies)
  const phase = (name: string): number => median(fetches.map(fetch => fetch.phases[name] ?? 0))
  const verifying = median(fetches.map(fetch => (fetch.phases['verifying'] ?? 0) / fetch.total))
  const ms = (value: number): { value: number, unit: 'ms' } => ({ value, unit: 'ms' })
  return [
    {
      name: 'One image of 1 GiB, host to host on loopback: encrypted, verified, published, durable',
      figures: { 'narvik fetch': ms(total), 'nix copy': ms(copy) },
      ratios: [{ against: 'nix copy from a plain-HTTP binary cache', ratio: total / copy, budget: 1 }],
      notes: [
        `of the fetch: finding ${phase('finding').toFixed(0)} ms, receiving ${phase('receiving').toFixed(0)} ms, sealing and verifying ${phase('verifying').toFixed(0)} ms, publishing ${phase('publishing').toFixed(0)} ms`,
        `CPU time: provider ${median(fetches.map(({ cpu }) => cpu.provider)).toFixed(2)} s, receiver ${median(fetches.map(({ cpu }) => cpu.receiver)).toFixed(2)} s`,
        'Narvik encrypts and makes every byte durable before the image is shown; the binary cache is not encrypted, and Nix leaves the bytes to the page cache',
      ],
    },
    {
      name: "Verification's share of a fetch",
      figures: { 'sealing and verifying': ms(phase('verifying')), 'the rest of the fetch': ms(median(fetches.map(fetch => fetch.total - (fetch.phases['verifying'] ?? 0)))) },
      ratios: [{ against: 'the whole fetch', ratio: verifying, budget: 0.05 }],
      notes: ['the stages run after the last byte has arrived, so that a fetch without them would take that much less; the share has the flush of the last bytes in it'],
    },
  ]
}
