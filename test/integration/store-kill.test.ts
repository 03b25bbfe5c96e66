import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { reconcile } from '../../src/store/reconcile.ts'
import { someHash } from '../helpers/images.ts'
import { expectInvariants, expectJournal } from '../helpers/invariants.ts'
import { closeStore, openStore } from '../helpers/store.ts'
import { temporaryDirectory } from '../helpers/temporary.ts'

const KILLS = process.env['SLOW'] === '1' ? 200 : 20
const IMAGES = [0, 1, 2, 3, 4, 5]
const PROGRAM = new URL('../fixtures/store-life.ts', import.meta.url).pathname

test('a daemon that is killed again and again loses nothing proven and shows nothing unproven', async () => {
  const dataDir = await temporaryDirectory()
  const known = new Map<number, string>()
  let said = 0
  for (let kill = 0; kill < KILLS; kill++) {
    for (const [word, image] of await runAndKill(dataDir, Math.random() * 120)) {
      known.set(image, word)
      said += 1
    }
    const store = await openStore(dataDir)
    await reconcile(store.catalog, store.content, { logger: silentLogger })
    await expectInvariants(store)
    for (const image of IMAGES) {
      const state = store.catalog.get(someHash(image))?.state
      if (known.get(image) === 'verified') expect(state, `image ${image} was verified`).toBe('verified')
      if (known.get(image) === 'removed') expect(state, `image ${image} was removed`).not.toBe('verified')
      expectJournal(store.catalog.journal(someHash(image)), state ?? null)
    }
    closeStore(store)
  }
  expect(said, 'the daemon came to do something').toBeGreaterThan(KILLS)
})

/** Runs the program for some milliseconds after it is ready, kills it, and gives what it said of each image. */
async function runAndKill(dataDir: string, milliseconds: number): Promise<[word: string, image: number][]> {
  const child = spawn(process.execPath, [PROGRAM, dataDir], { stdio: ['ignore', 'pipe', 'pipe'] })
  let complaint = ''
  child.stderr.on('data', (chunk: Buffer) => { complaint += chunk.toString() })
  const ended = new Promise<NodeJS.Signals | null>(resolve => child.on('close', (_code, signal) => { resolve(signal) }))
  const words: [string, number][] = []
  for await (const line of createInterface({ input: child.stdout })) {
    const [word = '', image = ''] = line.split(' ')
    if (word === 'ready') setTimeout(() => child.kill('SIGKILL'), milliseconds)
    else words.push([word, Number(image)])
  }
  expect(await ended, complaint).toBe('SIGKILL')
  return words
}
