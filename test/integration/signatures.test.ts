import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { ImageDetailsJson, ImageJson, VerifyReportJson } from '../../src/control/api.ts'
import { startFleet, TestDaemon } from '../helpers/fleet.ts'
import { throwAwayStore, type ThrowAwayStore } from '../helpers/nix-store.ts'

interface Signer {
  readonly publicKey: string
  readonly file: string
}

function makeStore(): ThrowAwayStore {
  const store = throwAwayStore()
  onTestFinished(() => { store.remove() })
  return store
}

function makeSigner(store: ThrowAwayStore, name: string): Signer {
  const file = store.file(name, store.run('nix', 'key', 'generate-secret', '--key-name', name))
  return { file, publicKey: store.run('sh', '-c', `nix key convert-secret-to-public < ${file}`) }
}

/** An output that no content address stands for, so that only a signature can vouch for it. */
function build(store: ThrowAwayStore): string {
  return store.run('nix-build', '--no-out-link', '-E', 'derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ]; }')
}

/** A host with the store, and one without any that trusts what is given; connected. */
async function startPair(store: ThrowAwayStore, env: Record<string, string> = {}): Promise<[TestDaemon, TestDaemon]> {
  const sender = await TestDaemon.start({ env: store.env })
  const receiver = await TestDaemon.start({ bootstrap: [sender], env: { NARVIK_NIX_ENABLED: 'false', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '10', ...env } })
  await receiver.untilPeers(1)
  return [sender, receiver]
}

async function stageOf(host: TestDaemon, ref: string, name: string): Promise<unknown> {
  const { journal } = await host.json<ImageDetailsJson>('show', ref)
  return journal.findLast(entry => entry.evidence?.verdict !== undefined)?.evidence?.verdict?.stages.find(({ stage }) => stage === name)
}

describe('the signature policy', () => {
  it('refuses what too few trusted keys signed, and keeps it out of reach; what it lacks can be added', async () => {
    const store = makeStore()
    const path = build(store)
    const trusted = makeSigner(store, 'fleet-1')
    store.run('nix', 'store', 'sign', '--key-file', makeSigner(store, 'stranger-1').file, path)
    const [sender, host] = await startPair(store, { NARVIK_TRUST_KEYS: trusted.publicKey, NARVIK_TRUST_SIGNATURES_BY_HASH: '1' })
    const image = await sender.json<ImageJson>('import', path)
    expect(image).toMatchObject({ storePath: path, vouchedBy: 'nix', state: 'verified' })

    const refused = await host.run('fetch', image.narHash, '--name', 'built', '--json')
    expect(refused.exitCode).toBe(6)
    expect(JSON.parse(refused.stdout)).toMatchObject({ error: { code: 'refused', message: expect.stringMatching(/0 trusted keys signed .*unknown keys: stranger-1/) as string } })
    expect(await host.json<ImageJson>('show', image.narHash)).toMatchObject({ state: 'rejected', path: null, storePath: null, reason: expect.stringContaining('1 needed') as string })
    expect(await stageOf(host, image.narHash, 'signatures')).toMatchObject({ verdict: 'fail', signatures: [{ keyName: 'stranger-1', verdict: 'unknown' }] })
    expect(await stageOf(host, image.narHash, 'nar-hash')).toMatchObject({ verdict: 'pass' })
    expect(await readdir(join(host.dataDir, 'images'))).toEqual([])
    expect(await readdir(join(host.dataDir, 'by-name'))).toEqual([])
    // Whoever sent the right bytes did nothing wrong.
    expect((await host.client.peers()).map(({ banned }) => banned)).toEqual([false])

    // Another host has the signature; the bytes are here already.
    store.run('nix', 'store', 'sign', '--key-file', trusted.file, path)
    const other = await TestDaemon.start({ env: store.env, bootstrap: [sender] })
    await other.json('import', path)
    await host.untilPeers(2)
    const fetched = await host.json<ImageJson>('fetch', image.narHash)
    expect(fetched).toMatchObject({ state: 'verified', storePath: path, vouchedBy: 'signatures' })
    const { journal } = await host.json<ImageDetailsJson>('show', image.narHash)
    expect(journal.map(entry => entry.event)).toEqual(['create', 'start', 'complete', 'fail', 'retry', 'start', 'complete', 'pass'])
    expect(journal.at(-3)?.reason).toBe('its bytes are here')
    expect(await stageOf(host, image.narHash, 'signatures')).toMatchObject({
      verdict: 'pass', signatures: expect.arrayContaining([expect.objectContaining({ keyName: 'fleet-1', verdict: 'good', madeBy: trusted.publicKey })]) as unknown,
    })
  })

  it('takes what is content-addressed without any signature, by hash and by store path', async () => {
    const store = makeStore()
    const path = store.run('nix', 'store', 'add-path', '--name', 'tree', store.file('tree', 'a tree'))
    const [sender, host] = await startPair(store, { NARVIK_TRUST_SIGNATURES_BY_HASH: '2' })
    const image = await sender.json<ImageJson>('import', path)
    expect(await host.json<ImageJson>('fetch', image.narHash)).toMatchObject({ state: 'verified', storePath: path, vouchedBy: 'content-address' })
    expect(await host.json<ImageJson>('fetch', path)).toMatchObject({ narHash: image.narHash })
  })

  it('gives an unsigned image by its hash, while its store path is a claim', async () => {
    const store = makeStore()
    const path = build(store)
    const signer = makeSigner(store, 'fleet-1')
    const [sender, host] = await startPair(store)
    const image = await sender.json<ImageJson>('import', path)
    const fetched = await host.json<ImageJson>('fetch', image.narHash)
    expect(fetched).toMatchObject({ state: 'verified', storePath: null, references: [], deriver: null, vouchedBy: null, note: expect.stringContaining(`said to be ${path}`) as string })
    expect((await host.run('export', path, join(host.dir, 'out'), '--json')).exitCode).toBe(4)
    // The bytes are here, and asking for them by the claimed path is refused all the same.
    expect((await host.run('fetch', path, '--json')).exitCode).toBe(6)
    expect(await host.json<ImageJson>('show', image.narHash)).toMatchObject({ state: 'verified' })
    await host.stop()

    // A key that is trusted later changes nothing for an image without its signature.
    const again = await TestDaemon.start({ dir: host.dir, env: { NARVIK_NIX_ENABLED: 'false', NARVIK_TRUST_KEYS: signer.publicKey } })
    expect(await again.json<ImageJson>('show', image.narHash)).toMatchObject({ state: 'verified', vouchedBy: null })
  })

  it('follows the keys of the configuration: a new one vouches, one that is taken out does not', async () => {
    const store = makeStore()
    const path = build(store)
    const signer = makeSigner(store, 'fleet-1')
    store.run('nix', 'store', 'sign', '--key-file', signer.file, path)
    const [sender, host] = await startPair(store)
    const image = await sender.json<ImageJson>('import', path)
    expect(await host.json<ImageJson>('fetch', image.narHash)).toMatchObject({ vouchedBy: null, storePath: null })
    await host.stop()

    const trusting = await TestDaemon.start({ dir: host.dir, env: { NARVIK_TRUST_KEYS: signer.publicKey, NARVIK_NIX_ENABLED: 'false' } })
    expect(await trusting.json<ImageJson>('show', path)).toMatchObject({ narHash: image.narHash, vouchedBy: 'signatures', storePath: path })
    expect(await trusting.json<ImageJson>('fetch', path)).toMatchObject({ narHash: image.narHash })
    await trusting.stop()

    const strict = await TestDaemon.start({ dir: host.dir, env: { NARVIK_TRUST_SIGNATURES_BY_HASH: '1', NARVIK_NIX_ENABLED: 'false' } })
    expect(await strict.json<ImageJson>('show', image.narHash)).toMatchObject({ vouchedBy: null, storePath: null })
    const verified = await strict.run('verify', image.narHash, '--json')
    expect(verified.exitCode).toBe(6)
    expect(await strict.json<ImageJson>('show', image.narHash)).toMatchObject({ state: 'rejected', path: null })
    expect((JSON.parse(verified.stdout) as VerifyReportJson).results[0]).toMatchObject({ verdict: 'fail' })
  })

  it('asks nothing of what a host imports itself', async () => {
    const store = makeStore()
    const [a] = await startFleet(1, { env: { ...store.env, NARVIK_TRUST_SIGNATURES_BY_HASH: '3' } })
    for (const path of [build(store), store.file('tree', 'a tree')]) {
      const image = await a.json<ImageJson>('import', path)
      expect(image.state).toBe('verified')
      expect(await a.json<VerifyReportJson>('verify', image.narHash)).toMatchObject({ results: [{ verdict: 'pass' }] })
    }
  })
})
