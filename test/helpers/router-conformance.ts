import { describe, expect, it } from 'vitest'
import { NarHash } from '../../src/image/nar-hash.ts'
import type { Announcement, ContentRouter, Provider } from '../../src/p2p/router.ts'
import { rangeOf } from './bytes.ts'
import { failureOf } from './failure.ts'

export interface Host {
  readonly peerId: string
  readonly router: ContentRouter
}

/** What every ContentRouter does; `start` makes hosts that reach each other. */
export function describeRouter(name: string, start: (count: number) => Promise<Host[]>): void {
  const narHash = NarHash.fromBytes(rangeOf(0, 32))
  const other = NarHash.fromBytes(rangeOf(1, 32))
  const image: Announcement = { narHash, narSize: 123, manifestDigest: 'ab'.repeat(32) }

  async function three(): Promise<[Host, Host, Host]> {
    const [a, b, c] = await start(3)
    if (a === undefined || b === undefined || c === undefined) throw new Error('too few hosts')
    return [a, b, c]
  }

  describe(name, () => {
    it('finds nobody for an image that nobody announced', async () => {
      const [a, b] = await three()
      await a.router.announce({ ...image, narHash: other })
      expect(await found(b, narHash)).toEqual([])
    })

    it('finds who announced, with what it said, from every other host and not from itself', async () => {
      const [a, b, c] = await three()
      expect(await a.router.announce(image)).toEqual({ reached: 2 })
      for (const host of [b, c]) {
        const [provider, ...more] = await found(host, narHash)
        expect(more).toEqual([])
        expect(provider?.peerId).toBe(a.peerId)
        expect(provider?.record?.narHash.equals(narHash)).toBe(true)
        expect(provider?.record).toMatchObject({ narSize: image.narSize, manifestDigest: image.manifestDigest })
      }
      expect(await found(a, narHash)).toEqual([])
    })

    it('finds each of several, once', async () => {
      const hosts = await start(4)
      await Promise.all(hosts.map(({ router }) => router.announce({ ...image, manifestDigest: null })))
      for (const host of hosts) {
        const ids = (await found(host, narHash)).map(({ peerId }) => peerId)
        expect(ids.toSorted()).toEqual(hosts.map(({ peerId }) => peerId).filter(id => id !== host.peerId).toSorted())
      }
    })

    it('does not find who has withdrawn, but the others', async () => {
      const [a, b, c] = await three()
      await Promise.all([a.router.announce(image), b.router.announce(image)])
      await a.router.withdraw(narHash)
      expect((await found(c, narHash)).map(({ peerId }) => peerId)).toEqual([b.peerId])
      expect(await found(b, narHash)).toEqual([])
    })

    it('finds who announced again, with the newest that it said', async () => {
      const [a, b] = await three()
      await a.router.announce(image)
      await a.router.withdraw(narHash)
      await a.router.announce({ ...image, narSize: 124 })
      expect(await found(b, narHash)).toMatchObject([{ peerId: a.peerId, record: { narSize: 124 } }])
    })

    it('ends as the last of many calls says', async () => {
      const [a, b] = await three()
      await Promise.all([a.router.announce(image), a.router.withdraw(narHash), a.router.announce(image), a.router.withdraw(narHash)])
      expect(await found(b, narHash)).toEqual([])
      await Promise.all([a.router.withdraw(narHash), a.router.announce(image), a.router.withdraw(narHash), a.router.announce(image)])
      expect(await found(b, narHash)).toHaveLength(1)
    })

    it('withdraws what was not announced without a word', async () => {
      const [a, b] = await three()
      await a.router.withdraw(narHash)
      expect(await found(b, narHash)).toEqual([])
    })

    it('ends with the reason of a signal', async () => {
      const [a, b] = await three()
      await a.router.announce(image)
      const reason = new Error('enough')
      expect(await failureOf(found(b, narHash, AbortSignal.abort(reason)))).toBe(reason)
      expect(await failureOf(a.router.announce(image, { signal: AbortSignal.abort(reason) }))).toBe(reason)
    })

    it('may be left at the first provider', async () => {
      const hosts = await start(4)
      await Promise.all(hosts.slice(1).map(({ router }) => router.announce(image)))
      const first = hosts[0]?.router.find(narHash) ?? []
      for await (const provider of first) {
        expect(provider.peerId).toBeTruthy()
        break
      }
    })
  })
}

async function found({ router }: Host, narHash: NarHash, signal?: AbortSignal): Promise<Provider[]> {
  const providers: Provider[] = []
  for await (const provider of router.find(narHash, { signal })) providers.push(provider)
  return providers
}

