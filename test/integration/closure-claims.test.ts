import { expect, it } from 'vitest'
import type { ImageDetailsJson, ImageJson } from '../../src/control/api.ts'
import { TestDaemon } from '../helpers/fleet.ts'
import { DERIVATION, twoStores, type TwoStores } from '../helpers/two-stores.ts'

/** Bytes of the path that comes packed with another. */
const LIBRARY_BYTES = 3_000_000

it('what only the policy has refused is judged anew once it is signed, and not received again', async () => {
  const stores = await twoStores()
  const { program } = await build(stores)
  const { a, b } = await twoHosts(stores, { NARVIK_TRUST_SIGNATURES_BY_HASH: '1' })
  const { narHash } = await a.json<ImageJson>('import', '--closure', program)
  expect((await b.run('fetch', narHash, '--closure')).exitCode).toBe(6)
  const rejected = (await b.json<ImageJson[]>('list')).filter(({ state }) => state === 'rejected')
  expect(rejected.some(({ narSize }) => (narSize ?? 0) > LIBRARY_BYTES)).toBe(true)
  const received = await bytesReceived(b)
  expect(received).toBeGreaterThan(LIBRARY_BYTES)

  await stores.sender.run('nix', 'store', 'sign', '--recursive', '--key-file', stores.secretKey, program)
  for (const image of await a.json<ImageJson[]>('list')) await a.json('rm', image.narHash)
  await a.json('import', '--closure', program)
  await b.json('fetch', narHash, '--closure')
  expect(await b.json<ImageDetailsJson>('show', program)).toMatchObject({ vouchedBy: 'signatures', closure: { paths: 2, missing: [] } })
  expect(await bytesReceived(b) - received).toBeLessThan(100_000)
})

it('a closure that was fetched as a claim is vouched for by this host\'s Nix, once it has it, and not read again', async () => {
  const stores = await twoStores()
  const { library, program } = await build(stores)
  const { a, b } = await twoHosts(stores)
  const { narHash } = await a.json<ImageJson>('import', '--closure', program)
  await b.json('fetch', narHash, '--closure')
  expect((await b.run('show', program)).exitCode).toBe(4)
  expect(await b.json<ImageDetailsJson>('show', narHash)).toMatchObject({ vouchedBy: null, closure: null })

  const { narHash: needed } = await a.json<ImageJson>('show', library)
  for (const hash of [needed, narHash]) await b.json('install', hash, '--no-check-sigs')
  const journal = (await b.json<ImageDetailsJson>('show', narHash)).journal
  expect(await b.json<ImageJson>('import', '--closure', program)).toMatchObject({ narHash, source: 'fetch', vouchedBy: 'nix' })
  const details = await b.json<ImageDetailsJson>('show', program)
  expect(details).toMatchObject({ vouchedBy: 'nix', references: [library], closure: { paths: 2, missing: [] }, journal })
  expect(await b.json<ImageDetailsJson>('show', library)).toMatchObject({ vouchedBy: 'nix', narHash: needed })
})

async function build({ sender }: TwoStores): Promise<{ library: string, program: string }> {
  const expression = `let make = ${DERIVATION}; library = make "library" "seq 1 1000000 | head -c ${LIBRARY_BYTES} > $out"; in make "program" "echo \${library} > $out"`
  const program = await sender.run('nix-build', '--no-out-link', '-E', expression)
  return { program, library: await sender.run('nix-store', '--query', '--references', program) }
}

async function twoHosts({ sender, receiver }: TwoStores, env: Record<string, string> = {}): Promise<{ a: TestDaemon, b: TestDaemon }> {
  const a = await TestDaemon.start({ env: sender.env })
  const b = await TestDaemon.start({ env: { ...receiver.env, ...env }, bootstrap: [a] })
  await Promise.all([a, b].map(daemon => daemon.untilPeers(1)))
  return { a, b }
}

async function bytesReceived(host: TestDaemon): Promise<number> {
  return (await host.client.peers()).reduce((sum, peer) => sum + peer.bytesReceived, 0)
}
