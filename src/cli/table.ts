import type { styleText } from 'node:util'
import { harmless } from './format.ts'

export type Style = Parameters<typeof styleText>[0]
/** Gives text a colour where the terminal has colours. */
export type Paint = (style: Style, text: string) => string

/** A cell with a colour; a bare string has none. */
export type Cell = string | { readonly text: string, readonly style: Style }

/** Columns under a heading, as wide as their widest cell. */
export function table(heading: readonly string[], rows: readonly (readonly Cell[])[], paint: Paint): string {
  const cells = rows.map(row => row.map(cell => typeof cell === 'string' ? { text: harmless(cell), style: undefined } : { ...cell, text: harmless(cell.text) }))
  const widths = heading.map((title, column) => Math.max(title.length, ...cells.map(row => row[column]?.text.length ?? 0)))
  const line = (row: readonly { text: string, style: Style | undefined }[]): string => row
    .map(({ text, style }, column) => {
      const padding = column === row.length - 1 ? '' : ' '.repeat((widths[column] ?? 0) - text.length)
      return (style === undefined ? text : paint(style, text)) + padding
    })
    .join('  ').trimEnd()
  return [line(heading.map(text => ({ text, style: 'bold' }))), ...cells.map(line)].join('\n')
}

/** Names on the left, values on the right; a field without a value is left out. */
export function fields(entries: Readonly<Record<string, Cell | null>>, paint: Paint): string {
  const width = Math.max(...Object.entries(entries).filter(([, cell]) => cell !== null).map(([name]) => name.length))
  const lines: string[] = []
  for (const [name, cell] of Object.entries(entries)) {
    if (cell === null) continue
    const value = typeof cell === 'string' ? harmless(cell) : paint(cell.style, harmless(cell.text))
    lines.push(`${paint('bold', name)}${' '.repeat(width - name.length)}  ${value}`)
  }
  return lines.join('\n')
}
