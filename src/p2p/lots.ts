/** At most `max` of the items, drawn by lot, in the order in which they were drawn. `random` gives numbers from 0 to less than 1. */
export function drawSome<Item>(items: readonly Item[], max: number, random: () => number = Math.random): Item[] {
  return items.map(item => ({ item, lot: random() })).sort((a, b) => a.lot - b.lot).slice(0, max).map(({ item }) => item)
}
