import type { ImageJson } from '../../src/control/api.ts'
import type { Member } from './member.ts'

/** What is known of an image on a host: `open` where what was asked of the host ended without an answer. */
type Copy = 'here' | 'gone' | 'open'

interface Entry {
  readonly copies: Map<Member, Copy>
  /** Whether somebody has removed a copy: only then may the last one be gone. */
  removed: boolean
}

/** Every image that was ever imported, and on which hosts it must be, by what they have answered. */
export class Ledger {
  readonly #entries = new Map<string, Entry>()
  /** Imports without an answer: nobody was told the NAR hash. */
  readonly #openImports = new Map<Member, number>()
  imported = 0
  fetched = 0
  removed = 0
  collected = 0

  get size(): number {
    return this.#entries.size
  }

  /** NAR hashes of which some host has a copy. */
  alive(): string[] {
    return Array.from(this.#entries).filter(([, { copies }]) => [...copies.values()].includes('here')).map(([narHash]) => narHash)
  }

  heldBy(member: Member): string[] {
    return Array.from(this.#entries).filter(([, { copies }]) => copies.get(member) === 'here').map(([narHash]) => narHash)
  }

  isHere(narHash: string, member: Member): boolean {
    return this.#entries.get(narHash)?.copies.get(member) === 'here'
  }

  note(narHash: string, member: Member, copy: Copy, { removed = false } = {}): void {
    const entry = this.#entries.get(narHash) ?? { copies: new Map<Member, Copy>(), removed: false }
    this.#entries.set(narHash, entry)
    entry.copies.set(member, copy)
    entry.removed ||= removed
  }

  noteOpenImport(member: Member): void {
    this.#openImports.set(member, (this.#openImports.get(member) ?? 0) + 1)
  }

  /** Compares what a host at rest says, and has on its disk, with what must be; and notes how what was open has ended. Answers with what is wrong. */
  async settle(member: Member): Promise<string[]> {
    const [images, published, quarantine] = await Promise.all([member.client.list(), member.entries('images'), member.entries('quarantine')])
    const verified = new Map(images.filter(({ state }) => state === 'verified').map(image => [image.narHash, image]))
    const wrong = [...this.#compare(member, verified), ...strangers(images, published, quarantine)]
    for (const narHash of verified.keys()) {
      if (this.#entries.has(narHash)) continue
      const open = this.#openImports.get(member) ?? 0
      if (open === 0) wrong.push(`${narHash}, which nobody has imported`)
      this.#openImports.set(member, open - 1)
      this.note(narHash, member, 'here')
    }
    return wrong.map(what => `host ${member.number}: ${what}`)
  }

  /** Images that no host has any more, though nobody has removed one of their copies; to be asked when all hosts have settled. */
  lost(): string[] {
    return Array.from(this.#entries).filter(([, { copies, removed }]) => !removed && ![...copies.values()].includes('here')).map(([narHash]) => `${narHash} is nowhere, and nobody has removed it`)
  }

  #compare(member: Member, verified: ReadonlyMap<string, ImageJson>): string[] {
    const wrong: string[] = []
    for (const [narHash, { copies }] of this.#entries) {
      const copy = copies.get(member) ?? 'gone'
      const isHere = verified.has(narHash)
      if (copy === 'here' && !isHere) wrong.push(`${narHash} must be here, and is not`)
      if (copy === 'gone' && isHere) wrong.push(`${narHash} must not be here, and is`)
      copies.set(member, isHere ? 'here' : 'gone')
    }
    return wrong
  }
}

/** Files without an image, and images without their files. */
function strangers(images: readonly ImageJson[], published: readonly string[], quarantine: readonly string[]): string[] {
  const paths = new Set(images.flatMap(({ path }) => path?.split('/').at(-1) ?? []))
  const unfinished = images.filter(({ state }) => state !== 'verified')
  return [
    ...published.filter(name => !paths.has(name)).map(name => `images/${name} without an image`),
    ...[...paths].filter(name => !published.includes(name)).map(name => `an image without images/${name}`),
    ...unfinished.filter(({ state }) => state !== 'wanted').map(({ narHash, state, reason }) => `${narHash} is ${state} at rest: ${String(reason)}`),
    ...(quarantine.length > unfinished.length ? [`${quarantine.length} trees in quarantine, for ${unfinished.length} images that are not verified`] : []),
  ]
}
