import { basename } from 'node:path'
import { expect, test } from 'vitest'
import { watchSteps } from '../../helpers/file-system.ts'
import { someHash } from '../../helpers/images.ts'
import { openStore } from '../../helpers/store.ts'
import { makeTree } from '../../helpers/tree.ts'

const narHash = someHash('image')

/** The steps of some work in their order; `sync` is an fsync of whatever was opened before it. */
async function stepsOf(work: (log: string[]) => Promise<unknown>): Promise<string[]> {
  const log: string[] = []
  await watchSteps(({ call, path }) => { log.push(path === '' ? call : `${call} ${basename(path)}`) }, async () => { await work(log) })
  return log
}

test('what must survive a power cut is synced before the next step relies on it', async () => {
  const { content } = await openStore()
  const nix32 = narHash.toNix32()
  expect(await stepsOf(() => content.begin(narHash))).toEqual([`mkdir ${nix32}`, 'sync'])
  expect(await stepsOf(() => content.writeProgress(narHash, { offset: 1 }))).toEqual(['writeFile', 'sync', 'rename progress.json.tmp', 'sync'])

  await makeTree(content.quarantineTree(narHash), narHash)
  const publish = await stepsOf(log => content.publishWith(narHash, () => log.push('the catalog claims it')))
  // The root of the tree was made writable when it was sealed.
  expect(publish.slice(0, 6)).toEqual(['rename tree', 'chmod', 'sync', 'sync', 'sync', 'the catalog claims it'])

  const withdraw = await stepsOf(() => content.withdraw(narHash))
  expect(withdraw).toEqual([`mkdir ${nix32}`, 'sync', 'chmod', 'sync', `rename ${nix32}`, 'sync', 'sync'])

  const link = await stepsOf(() => content.link('web', '/nix/store/abc'))
  expect(link.map(step => step.replace(/\.tmp-\w+/, '.tmp'))).toEqual(['symlink abc', 'rename .tmp', 'sync'])
  expect(await stepsOf(() => content.unlink('web'))).toEqual(['unlink web', 'sync'])

  const discard = await stepsOf(() => content.discard(narHash))
  // Out of its place, and durably so, before anything in it goes: a tree in its place is whole.
  expect(discard.slice(0, 2)).toEqual([`rename ${nix32}`, 'sync'])

  const stage = await content.stage()
  await makeTree(stage.tree, narHash)
  expect(await stepsOf(() => content.adopt(stage, narHash))).toEqual(['sync', `rename ${basename(stage.dir)}`, 'sync'])
})
