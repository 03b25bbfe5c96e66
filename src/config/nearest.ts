/** The one of `known` that a person is most likely to have meant by `text`; it may also be one inside of the table `text`. */
export function nearest(text: string, known: readonly string[]): string {
  const inside = known.find(key => key.startsWith(`${text}.`))
  if (inside !== undefined) return inside
  const distances = known.map(key => ({ key, distance: Math.min(editDistance(text, key), editDistance(text, key.split('.').at(-1) ?? key) + 1) }))
  return distances.reduce((best, next) => next.distance < best.distance ? next : best).key
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length] ?? 0
}
