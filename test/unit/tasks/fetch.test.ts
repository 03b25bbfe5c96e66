import { readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { hashTree } from '../../../src/nar/hash-tree.ts'
import { fetchImage } from '../../../src/tasks/fetch-image.ts'
import { importImage } from '../../../src/tasks/import-image.ts'
import type { Progress } from '../../../src/tasks/jobs.ts'
import { expectFailure } from '../../helpers/failure.ts'
import { FakeFleet, gate, makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { someHash } from '../../helpers/images.ts'
import { directory, regular, symlink, type Tree } from '../../helpers/nar-bytes.ts'

const refOf = ({ narHash }: Pick<TestImage, 'narHash'>) => ({ ref: { kind: 'nar-hash' as const, narHash } })

describe('a fetch from an honest peer', () => {
  const trees: [string, Tree][] = [
    ['a directory', someTree()], ['an empty file', regular('')], ['a lone symlink', symlink('/nowhere')], ['an empty directory', directory()],
    ['an executable', regular('#!/bin/sh\n', true)],
  ]
  it.each(trees)('of %s ends verified, named, announced, with its evidence', async (_what, tree) => {
    const image = await makeImage(tree)
    const fleet = await FakeFleet.start()
    await fleet.add('giver', image)
    const { catalog, content } = fleet.context
    const row = await fetchImage(fleet.context, { ...refOf(image), name: 'it' })
    expect(row).toMatchObject({ state: 'verified', name: 'it', source: 'fetch', narSize: image.nar.length })
    expect((await hashTree(content.imageTree(image.narHash))).narHash.equals(image.narHash)).toBe(true)
    expect(await readlink(content.namePath('it'))).toContain(image.narHash.toNix32())
    expect(fleet.announces(image.narHash)).toBe(true)
    const passed = catalog.journal(image.narHash).at(-1)
    expect(passed?.evidence?.peers).toEqual([{ peerId: 'giver', bytes: image.nar.length, outcome: 'used', detail: null }])
    const stages = passed?.evidence?.verdict?.stages.map(({ stage, verdict }) => [stage, verdict])
    expect(stages).toEqual([['shape', 'pass'], ['size', 'pass'], ['nar-hash', 'pass'], ['metadata', 'pass'], ['signatures', 'skipped']])
    expect(passed?.evidence?.verdict?.stages.at(-2)?.detail).toBe('agrees with the manifest, peer giver, the DHT record of giver')
    expect(await readdir(join(content.dataDir, 'quarantine'))).toEqual([])
  })

  it('is done once, however many ask', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const held = gate()
    const giver = await fleet.add('giver', image, { before: () => held.opened })
    const all = Array.from({ length: 5 }, () => fetchImage(fleet.context, refOf(image)))
    const named = fetchImage(fleet.context, { ...refOf(image), name: 'late' })
    expect(fleet.context.jobs.list()).toHaveLength(1)
    held.open()
    for (const row of await Promise.all(all)) expect(row.state).toBe('verified')
    expect(giver.asked).toEqual([0])
    // Who comes later with a name gives it to the image.
    expect((await named).name).toBe('late')
    expect((await fetchImage(fleet.context, { ...refOf(image), name: 'later' })).name).toBe('later')
    expect(await readdir(join(fleet.context.content.dataDir, 'by-name'))).toEqual(['later'])
    expect(giver.asked).toEqual([0])
  })

  it('tells how far it is to everybody who waits', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('giver', image)
    const seen: Progress[] = []
    await fetchImage(fleet.context, { ...refOf(image), onProgress: progress => { seen.push(progress) } })
    const phases = new Set(seen.map(({ phase }) => phase))
    expect([...phases]).toEqual(['finding', 'receiving', 'verifying', 'publishing'])
    for (const { phase, totalBytes } of seen) if (phase === 'receiving') expect(totalBytes).toBe(image.nar.length)
  })
})

describe('a caller of a fetch', () => {
  it('that leaves, or has waited long enough, leaves it running', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const held = gate()
    await fleet.add('giver', image, { before: () => held.opened })
    const caller = new AbortController()
    const leaving = fetchImage(fleet.context, { ...refOf(image), signal: caller.signal })
    caller.abort()
    await expectFailure(leaving, 'interrupted', /the caller went away/)
    await expectFailure(fetchImage(fleet.context, { ...refOf(image), timeoutSeconds: 0.01 }), 'timed-out', /in 0.01 s: found it/)
    held.open()
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
  })

  it('waits no longer than it said for what else is done with the image', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const held = gate()
    const other = fleet.context.jobs.run('verify', image.narHash, () => held.opened)
    await expectFailure(fetchImage(fleet.context, { ...refOf(image), timeoutSeconds: 0.01 }), 'timed-out', /in 0.01 s/)
    held.open()
    await other.result
  })
})

describe('a fetch without a provider', () => {
  it('says so, and leaves no trace', async () => {
    const fleet = await FakeFleet.start()
    await expectFailure(fetchImage(fleet.context, refOf({ narHash: someHash(1) })), 'no-provider', /found no peer that announces it within 0 s/)
    expect(fleet.context.catalog.list()).toEqual([])
  })

  it.each(['not-found', 'refused', 'busy'] as const)('but one that answers %s says that', async answer => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('giver', image, { answer })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', new RegExp(`giver: Cannot .*answers ${answer}`))
  })

  it.each(['not-found', 'refused', 'busy'] as const)('that answers %s takes the next one', async answer => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('first', image, { answer })
    await fleet.add('second', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned]).toEqual([])
  })

  it('of a name or store path that is not known asks for the hash', async () => {
    const fleet = await FakeFleet.start()
    await expectFailure(fetchImage(fleet.context, { ref: { kind: 'name', name: 'web' } }), 'not-found', /needed a NAR hash/)
  })

  it('under a name that another image has is refused before anything is asked', async () => {
    const [one, two] = [await makeImage(regular('one')), await makeImage(regular('two'))]
    const fleet = await FakeFleet.start()
    const giver = await fleet.add('giver', two)
    await importImage(fleet.context, { path: one.path, name: 'golden' })
    await expectFailure(fetchImage(fleet.context, { ...refOf(two), name: 'golden' }), 'name-taken', /golden/)
    expect(giver.asked).toEqual([])
  })
})

describe('a provider that fails', () => {
  it('is followed by the next one at the byte that was reached', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    await fleet.add('first', image, { before: offset => { if (offset >= 128 * 1024) throw new Error('broken') } })
    const second = await fleet.add('second', image)
    await fetchImage(fleet.context, refOf(image))
    const peers = fleet.context.catalog.journal(image.narHash).at(-1)?.evidence?.peers ?? []
    expect(peers.map(({ peerId, outcome }) => [peerId, outcome])).toEqual([['first', 'used'], ['second', 'used']])
    expect(peers.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(image.nar.length)
    expect(second.asked).toEqual([peers[0]?.bytes])
    expect([...fleet.banned]).toEqual([])
  })

  it('by saying nothing for a while is left', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start({ settings: { stallMs: 200, providerWaitMs: 60_000 } })
    await fleet.add('silent', image, { before: (offset, signal) => offset === 0 ? undefined : new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(new Error('left')) }) }) })
    await fleet.add('second', image)
    expect((await fetchImage(fleet.context, refOf(image))).state).toBe('verified')
    expect([...fleet.banned]).toEqual([])
  })

  it('every time keeps what came, and says who failed and how', async () => {
    const image = await makeImage(someTree())
    const fleet = await FakeFleet.start()
    const giver = await fleet.add('giver', image, { before: offset => { if (offset >= 128 * 1024) throw new Error('broken') } })
    await expectFailure(fetchImage(fleet.context, refOf(image)), 'no-provider', /giver: /)
    expect(fleet.context.catalog.get(image.narHash)).toMatchObject({ state: 'wanted', reason: expect.stringContaining('giver') as string })
    const { offset } = await fleet.context.content.readProgress(image.narHash) ?? { offset: 0 }
    expect(offset).toBeGreaterThan(0)
    giver.habit = {}
    await fetchImage(fleet.context, refOf(image))
    expect(giver.asked.at(-1)).toBe(offset)
  })
})
