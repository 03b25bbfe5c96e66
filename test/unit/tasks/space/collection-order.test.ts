import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CollectionOrder, type Collectable } from '../../../../src/tasks/space/collection-order.ts'

function image(key: string, more: Partial<Collectable> = {}): Collectable {
  return { key, usedAt: 0, isNamed: false, mayGo: true, storePaths: [`/s/${key}`], references: [], ...more }
}

/** Takes all that goes, except what is told to stay. */
function goneFrom(images: readonly Collectable[], stays: (key: string) => boolean = () => false): string[] {
  const order = new CollectionOrder(images)
  const gone: string[] = []
  for (let next = order.next(); next !== undefined; next = order.next()) {
    if (stays(next.key)) continue
    gone.push(next.key)
    order.gone(next)
  }
  return gone
}

describe('the order of collection', () => {
  it('is: without a name first, then the one that was not used for longest', () => {
    const images = [image('new', { usedAt: 3 }), image('named', { usedAt: 1, isNamed: true }), image('old', { usedAt: 2 }), image('older-name', { usedAt: 0, isNamed: true })]
    expect(goneFrom(images)).toEqual(['old', 'new', 'older-name', 'named'])
  })

  it('takes nothing before what refers to it, however old it is', () => {
    const images = [image('lib', { usedAt: 1 }), image('app', { usedAt: 9, references: ['/s/lib', '/s/app'] }), image('other', { usedAt: 5 })]
    expect(goneFrom(images)).toEqual(['other', 'app', 'lib'])
  })

  it('keeps the closure of what may not go, and of what had to stay', () => {
    const images = [image('libc'), image('lib', { references: ['/s/libc'] }), image('pinned', { mayGo: false, references: ['/s/lib'] }), image('copy', { references: ['/s/libc'] })]
    expect(goneFrom(images)).toEqual(['copy'])
    expect(goneFrom([image('libc'), image('lib', { references: ['/s/libc'] })], key => key === 'lib')).toEqual([])
  })

  it('comes to what a named image needs only after that', () => {
    const images = [image('lib', { usedAt: 1 }), image('app', { usedAt: 2, isNamed: true, references: ['/s/lib'] }), image('web', { usedAt: 3, isNamed: true })]
    expect(goneFrom(images)).toEqual(['app', 'lib', 'web'])
  })

  it('counts a store path that two images claim as needed in both', () => {
    const images = [image('a', { storePaths: ['/s/x'] }), image('b', { storePaths: ['/s/x'] }), image('app', { mayGo: false, references: ['/s/x'] })]
    expect(goneFrom(images)).toEqual([])
  })

  it('leaves every closure whole, whatever the images are, at every step', () => {
    const someImages = fc.array(fc.record({ usedAt: fc.nat(9), isNamed: fc.boolean(), mayGo: fc.boolean(), stays: fc.boolean(), refers: fc.array(fc.nat(19), { maxLength: 4 }) }), { maxLength: 20 })
    fc.assert(fc.property(someImages, drawn => {
      // As in Nix, what is referred to was there before.
      const images = drawn.map(({ refers, usedAt, isNamed, mayGo }, index) => image(String(index), { usedAt, isNamed, mayGo, references: refers.filter(other => other <= index).map(other => `/s/${other}`) }))
      const left = new Map(images.map(each => [each.key, each]))
      for (const key of goneFrom(images, each => drawn[Number(each)]?.stays === true)) {
        const went = left.get(key)
        left.delete(key)
        expect(went?.mayGo).toBe(true)
        for (const { references } of left.values()) expect(references).not.toContain(`/s/${key}`)
      }
    }))
  })
})
