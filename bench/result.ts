/** What one benchmark found. */
export interface Result {
  readonly name: string
  /** The medians, or peaks, with their unit. */
  readonly figures: Readonly<Record<string, { readonly value: number, readonly unit: 'ms' | 's' | 'MiB' }>>
  /** Narvik's figure over that of the reference, in the same run; a share is a ratio to the whole. */
  readonly ratios: readonly Ratio[]
  /** What stands side by side. */
  readonly table?: Table | undefined
  /** Where the time goes, and what the figures can't tell. */
  readonly notes: readonly string[]
}

export interface Table {
  readonly columns: readonly string[]
  readonly rows: readonly (readonly string[])[]
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
export function linesOf({ name, figures, table, ratios, notes }: Result): string[] {
  return [
    name,
    ...tableLines(table).map(line => `  ${line}`),
    ...Object.entries(figures).map(([figure, { value, unit }]) => `  ${figure}: ${value.toFixed(unit === 's' ? 2 : 0)} ${unit}`),
    ...ratios.map(ratio => `  ${ratioText(ratio)}`),
    ...notes.map(note => `  ${note}`),
  ]
}

function tableLines(table: Table | undefined): string[] {
  if (table === undefined) return []
  const rows = [table.columns, ...table.rows]
  const widths = table.columns.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  return rows.map(row => row.map((cell, column) => column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)).join('  '))
}

function ratioText({ against, ratio, budget }: Ratio): string {
  const verdict = budget === undefined ? '' : ` (budget ${budget}: ${ratio <= budget ? 'met' : 'missed'})`
  return `${ratio.toFixed(3)} × ${against}${verdict}`
}
