import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { expectSound, expectSettled } from './daemon-invariants.ts'
import { temporaryDirectory, TestDaemon, type DaemonOptions } from './fleet.ts'

const HOOK = fileURLToPath(new URL('../fixtures/crash-at.ts', import.meta.url))

/** A verb, done again and again by a daemon that is killed at one step after the other. */
export interface Rehearsal {
  readonly options?: DaemonOptions
  /** What is there before, and must be there after each kill. */
  readonly prepare?: (host: TestDaemon) => Promise<void>
  /** Brings the host to where the verb starts; called before each time. */
  readonly before: (host: TestDaemon) => Promise<void>
  readonly verb: (host: TestDaemon) => Promise<unknown>
  /** What holds when the daemon is back, before anything else is done; on top of the invariants. */
  readonly afterKill?: (host: TestDaemon, at: string) => Promise<void>
  /** The steps that are of interest; all where absent. */
  readonly only?: RegExp
  /** nix32 of the images that somebody else has damaged, and that the host may not have looked at yet. */
  readonly unknownDamage?: ReadonlySet<string>
  /** What holds once the verb was done again. */
  readonly after: (host: TestDaemon) => Promise<void>
}

/** One step of a verb, and which of those alike: the first, the second … */
interface Point {
  readonly step: string
  readonly count: number
}

/** After the last step; the verb is done, and nothing is to be hit. */
const END: Point = { step: 'the end', count: 1 }
/** What goes on side by side does not always take the same steps as often: one that does not come is waited for once more, so many times. */
const MAX_TRIES = 4

/**
 * Does the verb once to learn its steps; then, for each of them, again with a SIGKILL right before it, and once with one right after its end.
 * Each time the daemon is started anew with what is left, the invariants are looked at, and the verb is done again. Answers with the steps.
 */
export async function crashEverywhere({ options = {}, prepare, before, verb, afterKill, after, unknownDamage = new Set(), only = /(?:)/ }: Rehearsal): Promise<string[]> {
  const dir = await temporaryDirectory()
  const steps = join(dir, 'steps')
  const roots = [join(dir, 'data'), ...(options.env?.['NIX_STATE_DIR'] === undefined ? [] : [options.env['NIX_STATE_DIR']])]
  const start = (): Promise<TestDaemon> => TestDaemon.start({
    ...options, dir, env: { ...options.env, NODE_OPTIONS: `--import ${HOOK}`, CRASH_AT_STEPS: dir, CRASH_AT_ROOTS: roots.join(':') },
  })
  const arm = async (target: string): Promise<void> => {
    await rm(steps, { force: true })
    await writeFile(join(dir, 'target'), target)
  }
  const disarm = (): Promise<void> => rm(join(dir, 'target'), { force: true })
  const seen = async (): Promise<string[]> => (await readFile(steps, 'utf8').catch(() => '')).split('\n').filter(line => line !== '').map(line => JSON.parse(line) as string)

  let host = await start()
  await prepare?.(host)
  await before(host)
  await arm('')
  await verb(host)
  await disarm()
  const all = await seen()
  const points = pointsOf(all.filter(step => only.test(step)))
  await after(host)
  /** One kill with all that follows from it; answers whether it was at that step. */
  const rehearse = async (point: Point): Promise<boolean> => {
    const at = `${point.step} (${point.count})`
    try {
      await before(host)
      await arm(`${point.count} ${point.step}`)
      const outcome = await verb(host).then(() => 'done', () => 'broken off')
      if (point === END) expect(outcome).toBe('done')
      // The kill is written down before it comes.
      const wasKilled = (await seen()).at(-1) === 'killed'
      await host.kill('SIGKILL')
      await disarm()
      host = await start()
      await expectSound(host, unknownDamage)
      await afterKill?.(host, at)
      await expectSettled(host, unknownDamage)
      await verb(host)
      await after(host)
      await expectSettled(host, unknownDamage)
      return wasKilled
    } catch (error) {
      throw new Error(`after a kill ahead of: ${at}\n${host.log}`, { cause: error })
    }
  }
  const isHit = async (point: Point): Promise<boolean> => {
    for (let tries = 0; tries < MAX_TRIES; tries++) if (await rehearse(point)) return true
    return false
  }
  const missed: string[] = []
  for (const point of points) if (!await isHit(point)) missed.push(`${point.step} (${point.count})`)
  await rehearse(END)
  await host.stop()
  expect(points.length, 'steps to be killed at').toBeGreaterThan(0)
  expect(missed.length, `steps that did not come again, of ${points.length}: ${missed.join('; ')}`).toBeLessThanOrEqual(points.length / 8)
  return all
}

/** Of steps that are alike, the first, the last and, where they are many, one between them. */
function pointsOf(steps: readonly string[]): Point[] {
  const counts = Map.groupBy(steps, step => step)
  return [...counts].flatMap(([step, { length }]) => [...new Set([1, ...length > 4 ? [length >> 1] : [], length])].map(count => ({ step, count })))
}
