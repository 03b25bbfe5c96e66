import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../../../src/log.ts'
import { Uses } from '../../../../src/tasks/space/uses.ts'
import { someHash } from '../../../helpers/images.ts'
import { openStore } from '../../../helpers/store.ts'

async function using() {
  const { catalog } = await openStore()
  const clock = { now: Date.now() + 1000 }
  const uses = new Uses({ catalog, logger: silentLogger }, { now: () => clock.now })
  const narHash = someHash('it')
  catalog.create({ narHash, source: 'import', place: 'content' })
  const written = (): number | undefined => catalog.get(narHash)?.usedAt.getTime()
  return { catalog, uses, clock, narHash, written }
}

describe('the uses of an image', () => {
  it('are written once, however many there were', async () => {
    const { catalog, uses, clock, narHash, written } = await using()
    const created = written()
    let writes = 0
    const counted = new Uses({ catalog: { keeping: { markUsed: all => { writes++; catalog.keeping.markUsed(all) } } }, logger: silentLogger }, { now: () => clock.now })
    for (let count = 0; count < 1000; count++) counted.touch(narHash)
    expect(written()).toBe(created)
    counted.flush()
    counted.flush()
    expect([written(), writes]).toEqual([clock.now, 1])
    expect(uses.lastUse(narHash)).toBeUndefined()
  })

  it('are never put back in time, and an image that is gone is no matter', async () => {
    const { uses, clock, narHash, written } = await using()
    uses.touch(narHash)
    uses.touch(someHash('gone'))
    uses.flush()
    const at = clock.now
    clock.now -= 500
    uses.touch(narHash)
    uses.flush()
    expect(written()).toBe(at)
  })

  it('are held until the last one ends, and the end is a use as well', async () => {
    const { uses, clock, narHash } = await using()
    const [one, two] = [uses.hold(narHash), uses.hold(narHash)]
    one[Symbol.dispose]()
    expect(uses.isHeld(narHash)).toBe(true)
    clock.now += 50
    two[Symbol.dispose]()
    expect([uses.isHeld(narHash), uses.lastUse(narHash)]).toEqual([false, clock.now])
  })

  it('are written when the daemon stops', async () => {
    const { uses, clock, narHash, written } = await using()
    uses.start()
    uses.touch(narHash)
    uses.stop()
    expect(written()).toBe(clock.now)
  })
})
