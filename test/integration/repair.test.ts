import { chmod, open } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { ImageJson, VerifyReportJson } from '../../src/control/api.ts'
import { MAX_CHUNK_BYTES } from '../../src/limits.ts'
import { startFleet, temporaryDirectory } from '../helpers/fleet.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024

it('a damaged image gets back only what is wrong, and is shown again', async () => {
  const [a, b] = await startFleet(2)
  const source = join(await temporaryDirectory(), 'disk.raw')
  await makeRawDisk(source, 64 * MIB)
  const { narHash } = await a.json<ImageJson>('import', source)
  const { path } = await b.json<ImageJson>('fetch', narHash, '--name', 'it')
  if (path === null) throw new Error('a fetched image has no path')
  const sentBefore = await receivedBytes(b)
  await flip(path, [10 * MIB + 17, 40 * MIB + 4711])
  const report = await b.json<VerifyReportJson>('verify', 'it', '--repair')
  const [result] = report.results
  expect(result).toMatchObject({ narHash, verdict: 'pass' })
  expect(result?.repaired?.received).toBe(result?.repaired?.bytes)
  expect(result?.repaired?.received).toBeLessThanOrEqual(2 * MAX_CHUNK_BYTES)
  // With the headers of two requests.
  expect(await receivedBytes(b) - sentBefore).toBeLessThanOrEqual((result?.repaired?.bytes ?? 0) + 4096)
  expect(await b.json<ImageJson>('show', 'it')).toMatchObject({ state: 'verified', path })
  expect(await b.json<VerifyReportJson>('verify', 'it')).toMatchObject({ results: [{ verdict: 'pass' }] })
})

async function receivedBytes(host: { json: <T>(...args: string[]) => Promise<T> }): Promise<number> {
  const peers = await host.json<{ bytesReceived: number }[]>('peers')
  return peers.reduce((sum, { bytesReceived }) => sum + bytesReceived, 0)
}

async function flip(file: string, positions: readonly number[]): Promise<void> {
  await chmod(file, 0o644)
  const handle = await open(file, 'r+')
  for (const position of positions) {
    const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, position)
    await handle.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, position)
  }
  await handle.close()
}
