import { expect, it, vi } from 'vitest'
import { secure, socketOf } from '../helpers/tls-pair.ts'

/** Bytes of a TLS record besides those that it carries. */
const RECORD = 22

it('what is said in one moment goes into one record', async () => {
  const { near, outbound, inbound } = await secure()
  const [{ connection: out }, { connection: inn }] = await Promise.all([outbound, inbound])
  const heard: number[] = []
  inn.addEventListener('message', ({ data }) => { heard.push(...data.subarray()) })
  const before = socketOf(near).bytesWritten
  for (let at = 0; at < 10; at++) out.send(Uint8Array.of(at))
  await vi.waitFor(() => { expect(heard).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) })
  expect(socketOf(near).bytesWritten - before).toBe(10 + RECORD)
})
