import { readFile } from 'node:fs/promises'
import { z } from 'zod'

const totals = z.object({ received: z.number(), receivedBroken: z.number(), sent: z.number(), sentBroken: z.number() })
const lastWord = z.object({ msg: z.literal('stopped'), traffic: z.record(z.string(), totals) })
export type Totals = z.infer<typeof totals>
/** By protocol: `nar`, `chunks`, … */
export type Books = Map<string, Totals>

const METRICS = { received: 'received', receivedBroken: 'received_broken', sent: 'sent', sentBroken: 'sent_broken' } as const
const KEYS = Object.keys(METRICS) as (keyof Totals)[]

/** What a daemon has counted so far, from its metrics. */
export function booksOf(metrics: string): Books {
  const books: Books = new Map()
  for (const key of KEYS) {
    for (const [, kind = '', value] of metrics.matchAll(new RegExp(`^narvik_${METRICS[key]}_bytes_total\\{kind="(\\w+)"\\} (\\d+)$`, 'gm'))) {
      addTo(books, new Map([[kind, { ...NOTHING, [key]: Number(value) }]]))
    }
  }
  return books
}

/** What a daemon that was stopped had counted, from the last line of its log. */
export async function lastBooks(logFile: string): Promise<Books> {
  const line = (await readFile(logFile, 'utf8')).trim().split('\n').at(-1) ?? ''
  const { traffic } = lastWord.parse(JSON.parse(line))
  return new Map(Object.entries(traffic).map(([protocol, counted]) => [protocol.split('/')[2] ?? protocol, counted]))
}

export function addTo(books: Books, more: Books): void {
  for (const [kind, counted] of more) {
    const before = books.get(kind) ?? NOTHING
    books.set(kind, Object.fromEntries(KEYS.map(key => [key, before[key] + counted[key]])) as Totals)
  }
}

/**
 * Bytes by which what was sent in order is more than what was received in order, by protocol: none, but for exchanges that were cut after the last
 * byte was sent and before it arrived. Those have ended well for the one who sent and broken off for the other, and neither can know better.
 */
export function disagreements(books: Books): ReadonlyMap<string, number> {
  return new Map(Array.from(books, ([kind, { sent, sentBroken, received, receivedBroken }]) => [kind, sent - sentBroken - (received - receivedBroken)]))
}

/** What can't be, whatever was cut: more that arrived than was sent. */
export function impossibilities(books: Books): string[] {
  return Array.from(books).filter(([, { sent, received }]) => received > sent).map(([kind, { sent, received }]) => `${kind}: ${received} bytes received, of ${sent} sent`)
}

const NOTHING: Totals = { received: 0, receivedBroken: 0, sent: 0, sentBroken: 0 }
