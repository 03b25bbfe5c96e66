import { expect, it } from 'vitest'
import { FetchQueue } from '../../../src/tasks/fetch-queue.ts'
import { Jobs } from '../../../src/tasks/jobs.ts'
import { presentSending, presentTransfer } from '../../../src/tasks/present.ts'
import { someHash } from '../../helpers/images.ts'

const catalog = { get: () => undefined }

it('says of what waits at which place it does', () => {
  const queue = new FetchQueue(1)
  const jobs = new Jobs()
  const never = (): Promise<never> => new Promise(() => undefined)
  for (const number of [1, 2, 3]) void queue.enter(someHash(number), { priority: number, signal: new AbortController().signal, onWait: () => undefined })
  const transfers = [1, 2, 3].map(number => presentTransfer({ catalog, queue }, jobs.run('fetch', someHash(number), never)))
  // The first one has its turn; the third is more urgent than the second.
  expect(transfers.map(({ queuePosition }) => queuePosition)).toEqual([null, 2, 1])
})

it('adds up what is sent of an image', () => {
  const at = Date.now() - 2000
  const sending = [
    { peerId: 'a', narHash: someHash(1), sent: 1000, startedAt: at },
    { peerId: 'b', narHash: someHash(1), sent: 3000, startedAt: at + 1000 },
    { peerId: 'a', narHash: someHash(2), sent: 7, startedAt: at },
  ]
  const [first, second, ...rest] = presentSending(catalog, sending)
  expect(first).toMatchObject({ narHash: someHash(1).toSri(), direction: 'out', phase: 'sending', bytes: 4000, startedAt: new Date(at).toISOString(), peers: [{ peerId: 'a', bytes: 1000 }, { peerId: 'b', bytes: 3000 }] })
  expect(second).toMatchObject({ bytes: 7, totalBytes: null })
  expect(rest).toEqual([])
})
