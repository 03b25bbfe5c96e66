/** What one benchmark found. */
export interface Result {
  readonly name: string
  /** The medians, or peaks, with their unit. */
  readonly figures: Readonly<Record<string, { readonly value: number, readonly unit: 'ms' | 's' | 'MiB' }>>
  /** Narvik's figure over that of the reference, in the same run; a share is a ratio to the whole. */
  readonly ratios: readonly Ratio[]
  /** Where the time goes, and what the figures can't tell. */
  readonly notes: readonly string[]
}

export interface Ratio {
  readonly against: string
  readonly ratio: number
  readonly budget?: number
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? NaN
}

/** One result as text for people. */
export function linesOf({ name, figures, ratios, notes }: Result): string[] {
  return [
    name,
    ...Object.entries(figures).map(([figure, { value, unit }]) => `  ${figure}: ${value.toFixed(unit === 's' ? 2 : 0)} ${unit}`),
    ...ratios.map(ratio => `  ${ratioText(ratio)}`),
    ...notes.map(note => `  ${note}`),
  ]
}

function ratioText({ against, ratio, budget }: Ratio): string {
  const verdict = budget === undefined ? '' : ` (budget ${budget}: ${ratio <= budget ? 'met' : 'missed'})`
  return `${ratio.toFixed(3)} × ${against}${verdict}`
}
