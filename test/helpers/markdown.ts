/** The cells of each row of the tables of a page, without the heads; code marks are taken off. */
export function tableRows(page: string): string[][] {
  const rows = page.split('\n').filter(line => line.startsWith('| '))
  const cells = rows.map(line => line.slice(2, -2).split(/ (?<!\\)\| /).map(cell => cell.replace(/^`(.*)`$/, '$1').replaceAll('\\|', '|')))
  return cells.filter((_, index) => !isRule(cells[index]) && !isRule(cells[index + 1]))
}

function isRule(cells: readonly string[] | undefined): boolean {
  return cells?.every(cell => /^-+$/.test(cell)) ?? false
}
