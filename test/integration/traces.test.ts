import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { ImageJson } from '../../src/control/api.ts'
import { NarHash } from '../../src/image/nar-hash.ts'
import { temporaryDirectory, TestDaemon } from '../helpers/fleet.ts'
import { OtlpReceiver, type ReceivedSpan } from '../helpers/otlp-receiver.ts'
import { makeRawDisk } from '../helpers/source-trees.ts'

const MIB = 1024 * 1024

function names(spans: readonly ReceivedSpan[]): string[] {
  return spans.map(({ name }) => name)
}

function only(spans: readonly ReceivedSpan[]): ReceivedSpan {
  const [span] = spans
  if (span === undefined || spans.length > 1) throw new Error(`found ${spans.length} spans, needed one: ${names(spans).join(', ')}`)
  return span
}

it('the work of two hosts is told to the receiver that they have, and nothing that names files', async () => {
  const receiver = await OtlpReceiver.start()
  const config = join(await temporaryDirectory(), 'narvik.toml')
  await writeFile(config, `[traces]\nendpoint = "${receiver.endpoint}/"\n`)
  // One is told of it by its configuration, the other by the variable.
  const source = await TestDaemon.start({ env: { NARVIK_CONFIG: config } })
  const host = await TestDaemon.start({ bootstrap: [source], env: { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.endpoint, OTEL_RESOURCE_ATTRIBUTES: 'rack=7', NARVIK_FETCH_PROVIDER_WAIT_SECONDS: '2' } })
  await host.untilPeers(1)

  const trees = await temporaryDirectory()
  const [large, small] = [join(trees, 'secret-name.raw'), join(trees, 'small.raw')]
  await makeRawDisk(large, 8 * MIB)
  await makeRawDisk(small, 0.5 * MIB)
  const image = await source.json<ImageJson>('import', large, '--name', 'secret-name')
  const bad = await source.json<ImageJson>('import', small)
  await host.json('fetch', image.narHash)
  await host.json('verify', image.narHash)
  const file = join(source.dataDir, 'images', NarHash.parse(bad.narHash).toNix32())
  await chmod(file, 0o600)
  await writeFile(file, Buffer.alloc(0.5 * MIB, 1), { flag: 'r+' })
  expect((await host.run('fetch', bad.narHash)).exitCode).not.toBe(0)
  expect((await host.run('install', bad.narHash)).exitCode).not.toBe(0)
  await host.stop()
  await source.stop()

  expect(new Set(receiver.requests.map(({ url, type }) => `${url} ${type}`))).toEqual(new Set(['/v1/traces application/json']))
  expect(only(receiver.of(host.peerId, 'verify')).resource).toMatchObject({ 'service.name': 'narvik', 'service.version': '0.1.0', 'rack': '7' })

  const imported = receiver.of(source.peerId, 'import').find(({ facts }) => facts['narvik.nar_hash'] === image.narHash)
  expect(imported).toMatchObject({ status: 0, parent: undefined, facts: { 'narvik.nar_size': image.narSize } })
  // What takes no time tells of no progress.
  expect(imported && names(receiver.childrenOf(imported)).filter(name => !['copying', 'hashing'].includes(name))).toEqual(['publishing'])

  const fetched = only(receiver.of(host.peerId, 'fetch').filter(({ facts }) => facts['narvik.nar_hash'] === image.narHash))
  expect(fetched).toMatchObject({ status: 0, facts: { 'narvik.verdict': 'pass', 'narvik.nar_size': image.narSize } })
  expect(fetched.events).toContainEqual({ name: 'stage', facts: expect.objectContaining({ 'narvik.stage': 'nar-hash', 'narvik.verdict': 'pass' }) as unknown })
  expect(fetched.events).toContainEqual({ name: 'peer', facts: expect.objectContaining({ 'narvik.peer_id': source.peerId, 'narvik.outcome': 'used' }) as unknown })
  const phases = receiver.childrenOf(fetched)
  expect([...new Set(names(phases))].toSorted()).toEqual(expect.arrayContaining(['finding', 'publishing', 'receiving', 'verifying']))
  for (const phase of phases) expect([phase.name, phase.start >= fetched.start, phase.end <= fetched.end]).toEqual([phase.name, true, true])
  const senders = phases.filter(({ name }) => name === 'receiving').flatMap(phase => receiver.childrenOf(phase))
  expect(senders.map(({ name, facts }) => [name, facts['narvik.peer_id']])).toEqual([['receiving from peer', source.peerId]])
  expect(senders[0]?.facts['narvik.bytes']).toBeGreaterThan(4 * MIB)

  const rejected = only(receiver.of(host.peerId, 'fetch').filter(({ facts }) => facts['narvik.nar_hash'] === bad.narHash))
  expect(rejected).toMatchObject({ status: 2, facts: { 'error.type': expect.stringMatching(/^[a-z-]+$/) as unknown } })
  expect(receiver.of(host.peerId, 'install')).toMatchObject([{ status: 2 }])

  const served = receiver.of(source.peerId, 'serve')
  expect(served.every(({ kind }) => kind === 2)).toBe(true)
  expect(served.filter(({ facts }) => facts['narvik.nar_hash'] === image.narHash).reduce((sum, { facts }) => sum + Number(facts['narvik.sent_bytes']), 0)).toBeGreaterThan(4 * MIB)
  // Each host's traces are its own: no peer was told of any.
  const ids = (peerId: string): Set<string> => new Set(receiver.spans.filter(({ resource }) => resource['service.instance.id'] === peerId).map(({ traceId }) => traceId))
  expect(ids(host.peerId).isDisjointFrom(ids(source.peerId))).toBe(true)

  const told = receiver.bodies.join('\n')
  for (const secret of [trees, host.dir, source.dir, 'secret-name', process.env.HOME ?? '/root', '.raw']) expect(told).not.toContain(secret)
})

it('a receiver that does not answer holds up nothing', async () => {
  const host = await TestDaemon.start({ env: { NARVIK_TRACES_ENDPOINT: 'http://127.0.0.1:1' } })
  const tree = join(await temporaryDirectory(), 'tree')
  await writeFile(tree, 'text')
  expect((await host.json<ImageJson>('import', tree)).state).toBe('verified')
  expect(await host.stop()).toBe(0)
  await expect(TestDaemon.start({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: 'receiver:4318' } })).rejects.toThrow(/Cannot send traces to receiver:4318\/v1\/traces: found no http/)
  await expect(TestDaemon.start({ env: { NARVIK_TRACES_ENDPOINT: 'ftp://receiver' } })).rejects.toThrow(/Cannot use traces\.endpoint .*needed an http or https address/)
})
