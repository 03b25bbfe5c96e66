import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkList } from '../../../src/image/chunk-list.ts'
import { decodeManifest, listsChunks } from '../../../src/image/manifest.ts'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { verifyTree, type Claim } from '../../../src/verify/pipeline.ts'
import { failureOf } from '../../helpers/failure.ts'
import { makeImage, someTree, type TestImage } from '../../helpers/fake-fleet.ts'
import { someHash } from '../../helpers/images.ts'
import { narBytes } from '../../helpers/nar-bytes.ts'
import { anyTree, plant, withTemporaryDirectory } from '../../helpers/trees.ts'
import { createHash } from 'node:crypto'

const stagesOf = ({ verdict }: Awaited<ReturnType<typeof verifyTree>>) => Object.fromEntries(verdict.stages.map(stage => [stage.stage, stage.verdict]))
const claimOf = ({ narHash, nar, metadata }: TestImage, change: Partial<Claim> = {}): Claim => ({ by: 'peer P', narHash, narSize: nar.length, manifestDigest: metadata.manifestDigest, ...change })

describe('the verify pipeline', () => {
  it('passes exactly the tree that it is told to expect', async () => {
    const expected = fc.constantFrom('its own', 'another')
    await fc.assert(fc.asyncProperty(anyTree, expected, async (tree, which) => withTemporaryDirectory(async dir => {
      plant(join(dir, 'tree'), tree)
      const own = createHash('sha256').update(narBytes(tree)).digest()
      const asked = which === 'its own' ? NarHash.fromBytes(own) : someHash('another')
      const { verdict, measured } = await verifyTree({ tree: join(dir, 'tree'), expected: asked, claims: [] })
      expect(verdict.verdict).toBe(which === 'its own' ? 'pass' : 'fail')
      expect(Buffer.from(measured?.narHash.bytes ?? []).equals(own)).toBe(true)
    })), { numRuns: 30 })
  })

  it('measures a tree of which nothing is expected', async () => {
    const image = await makeImage(someTree())
    const proof = await verifyTree({ tree: image.path, expected: null, claims: [] })
    expect(proof.measured).toMatchObject({ narSize: image.nar.length, manifestDigest: image.metadata.manifestDigest })
    expect(stagesOf(proof)).toEqual({ 'shape': 'pass', 'size': 'pass', 'nar-hash': 'pass', 'metadata': 'skipped' })
  })

  it('says of a tree with too many chunks that it goes in one stream, and makes its manifest without them', async () => {
    const image = await makeImage(someTree())
    const { listing } = decodeManifest(image.manifest)
    const { verdict, measured } = await verifyTree({ tree: image.path, expected: image.narHash, claims: [], followed: { listing, narHash: image.narHash, chunks: ChunkList.none() } })
    expect(verdict).toMatchObject({ verdict: 'pass', stages: [{ detail: expect.stringMatching(/too many chunks to be listed, so the image goes in one stream$/) as string }, {}, {}, {}] })
    expect(measured?.narSize).toBe(image.nar.length)
    expect(measured === null || listsChunks(measured.manifest)).toBe(false)
    const whole = await verifyTree({ tree: image.path, expected: image.narHash, claims: [] })
    expect(whole.verdict.stages[0]?.detail).not.toContain('stream')
  })

  const wrong: [string, (image: TestImage) => Partial<Claim>, Record<string, string>, RegExp][] = [
    ['size', () => ({ narSize: 1 }), { 'size': 'fail', 'nar-hash': 'pass', 'metadata': 'pass' }, /peer P says 1/],
    ['hash', () => ({ narHash: someHash(1) }), { 'size': 'pass', 'nar-hash': 'pass', 'metadata': 'fail' }, /peer P says it is/],
    ['manifest', () => ({ manifestDigest: 'f'.repeat(64) }), { 'size': 'pass', 'nar-hash': 'pass', 'metadata': 'fail' }, /peer P says its manifest is ffff/],
  ]
  it.each(wrong)('fails where somebody claims another %s, and says who', async (_what, change, stages, reason) => {
    const image = await makeImage(someTree())
    const honest = claimOf(image, { by: 'the DHT record of P' })
    const proof = await verifyTree({ tree: image.path, expected: image.narHash, claims: [honest, claimOf(image, change(image))] })
    expect(proof.verdict).toMatchObject({ verdict: 'fail', reason: expect.stringMatching(reason) as string })
    expect(stagesOf(proof)).toMatchObject(stages)
  })

  it('gives the NAR hash as the reason, whatever else is wrong', async () => {
    const image = await makeImage(someTree())
    const { verdict } = await verifyTree({ tree: image.path, expected: someHash(1), claims: [claimOf(image, { narSize: 3, narHash: someHash(1) })] })
    expect(verdict.reason).toMatch(/the tree hashes to .*, not to/)
    expect(verdict.stages.map(stage => stage.verdict)).toEqual(['pass', 'fail', 'fail', 'fail'])
  })

  it('takes a claim without a manifest for one', async () => {
    const image = await makeImage(someTree())
    const { verdict } = await verifyTree({ tree: image.path, expected: image.narHash, claims: [claimOf(image, { manifestDigest: null })] })
    expect(verdict.verdict).toBe('pass')
  })

  it.each([
    ['nothing', () => undefined, /found|no such/i],
    ['a fifo', (path: string) => { execFileSync('mkfifo', [path]) }, /fifo/],
  ])('fails where there is %s', async (_what, make, reason) => withTemporaryDirectory(async dir => {
    make(join(dir, 'tree'))
    const proof = await verifyTree({ tree: join(dir, 'tree'), expected: someHash(1), claims: [] })
    expect(proof.measured).toBeNull()
    expect(proof.verdict).toMatchObject({ verdict: 'fail', reason: expect.stringMatching(reason) as string })
    expect(stagesOf(proof)).toEqual({ shape: 'fail' })
  }))

  it('says what is wrong, and not where the tree is', async () => withTemporaryDirectory(async dir => {
    mkdirSync(join(dir, 'tree'))
    execFileSync('mkfifo', [join(dir, 'tree', 'odd')])
    const { verdict } = await verifyTree({ tree: join(dir, 'tree'), expected: null, claims: [] })
    expect(verdict.reason).toBe('Cannot take odd: found a fifo, needed a file, directory or symlink')
    expect((await verifyTree({ tree: join(dir, 'none'), expected: null, claims: [] })).verdict.reason).not.toContain(dir)
  }))

  it('says that a tree is gone', async () => withTemporaryDirectory(async dir => {
    const { verdict, measured } = await verifyTree({ tree: join(dir, 'gone'), expected: someHash(1), claims: [] })
    expect([verdict.verdict, verdict.reason, measured]).toEqual(['fail', 'The tree is gone: found nothing where it was, needed it there', null])
  }))

  it('gives no verdict when it is interrupted', async () => withTemporaryDirectory(async dir => {
    writeFileSync(join(dir, 'tree'), 'x')
    const reason = new Error('given up')
    expect(await failureOf(verifyTree({ tree: join(dir, 'tree'), expected: null, claims: [] }, { signal: AbortSignal.abort(reason) }))).toBe(reason)
  }))
})
