import { type Row, SMALL, throughOneLink } from './scenarios.ts'

interface Panel {
  readonly title: string
  readonly top: number
  /** The highest value, and the steps of the scale. */
  readonly most: number
  readonly step: number
  readonly show: (value: number) => string
  readonly lines: readonly Line[]
}

interface Line {
  readonly name: string
  readonly colour: string
  readonly value: (row: Row) => number
}

const WIDTH = 720
const [LEFT, RIGHT, HEIGHT, GAP] = [64, 590, 150, 62]

/**
 * docs/swarm.svg: against the number of hosts, on a scale on which each doubling is as wide. Light on dark where the reader prefers
 * that, on a ground of its own; the colours of the lines can be read on both.
 */
export function plotOf(all: readonly Row[]): string {
  const rows = all.filter(({ event, mebibytes }) => event === 'none' && mebibytes === SMALL)
  const panels = panelsOf(rows)
  const height = 50 + panels.length * (HEIGHT + GAP)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="How a swarm grows from ${rows[0]?.hosts ?? 0} to ${rows.at(-1)?.hosts ?? 0} hosts">
<style>
  svg { color: #24292f; font: 13px system-ui, sans-serif }
  .page { fill: #fff }
  @media (prefers-color-scheme: dark) { svg { color: #e6edf3 } .page { fill: #0d1117 } }
  text { fill: currentColor }
  .grid { stroke: currentColor; stroke-opacity: .2 }
  .line { fill: none; stroke-width: 2.5 }
</style>
<rect class="page" width="${WIDTH}" height="${height}" rx="6"/>
${panels.map(panel => drawn(panel, rows)).join('\n')}
<text x="${(LEFT + RIGHT) / 2}" y="${height - 8}" text-anchor="middle">hosts that want the image</text>
</svg>
`
}

function panelsOf(rows: readonly Row[]): Panel[] {
  const scale = (value: (row: Row) => number, step: number): number => step * Math.max(1, Math.ceil(Math.max(0, ...rows.map(value)) / step))
  const place = (number: number): number => 34 + number * (HEIGHT + GAP)
  return [
    {
      title: 'seconds until a host has the image', top: place(0), most: scale(({ last }) => last, 5), step: 5, show: String,
      lines: [
        { name: 'last host', colour: '#cf5b2e', value: ({ last }) => last },
        { name: 'first host', colour: '#3d8bd4', value: ({ first }) => first },
        { name: 'one link', colour: '#8c8c8c', value: throughOneLink },
      ],
    },
    {
      title: 'sent by the seed, × image', top: place(1), most: scale(({ seedSent }) => seedSent, 0.5), step: 0.5, show: value => value.toFixed(1),
      lines: [{ name: 'all', colour: '#cf5b2e', value: ({ seedSent }) => seedSent }, { name: 'manifests', colour: '#3d8bd4', value: ({ manifests }) => manifests }],
    },
    {
      title: 'wasted, % of the image for each host', top: place(2), most: scale(({ wasted }) => 100 * wasted, 0.1), step: 0.1, show: value => value.toFixed(1),
      lines: [{ name: 'wasted', colour: '#cf5b2e', value: ({ wasted }) => 100 * wasted }],
    },
  ]
}

function drawn({ title, top, most, step, show, lines }: Panel, rows: readonly Row[]): string {
  const bottom = top + HEIGHT
  const across = scaleOf(rows)
  const up = (value: number): number => round(bottom - value / most * HEIGHT)
  const ticks = Array.from({ length: Math.round(most / step) + 1 }, (_, index) => index * step)
  const every = Math.ceil(ticks.length / 7)
  return [
    `<text x="${LEFT}" y="${top - 10}" font-weight="600">${title}</text>`,
    ...ticks.filter((_, index) => index % every === 0).map(tick =>
      `<path class="grid" d="M${LEFT} ${up(tick)}H${RIGHT}"/><text x="${LEFT - 8}" y="${up(tick) + 4}" text-anchor="end">${show(tick)}</text>`),
    ...rows.map(({ hosts }) => `<text x="${across(hosts)}" y="${bottom + 18}" text-anchor="middle">${hosts.toLocaleString('en')}</text>`),
    ...lines.map(({ colour, value }) => {
      const points = rows.map(row => `${across(row.hosts)} ${up(value(row))}`)
      return `<path class="line" stroke="${colour}" d="M${points.join('L')}"/>${points.map(point => `<circle cx="${point.replace(' ', '" cy="')}" r="3.5" fill="${colour}"/>`).join('')}`
    }),
    ...namesOf(lines, rows, up),
  ].join('\n')
}

/** The lines' names at their ends, far enough from each other to be read. */
function namesOf(lines: readonly Line[], rows: readonly Row[], up: (value: number) => number): string[] {
  const last = rows.at(-1)
  if (last === undefined) return []
  let above = -Infinity
  return lines.map(line => ({ ...line, at: up(line.value(last)) + 4 })).sort((a, b) => a.at - b.at).map(({ name, colour, at }) => {
    above = Math.max(at, above + 16)
    return `<text x="${RIGHT + 14}" y="${above}" style="fill:${colour}" font-weight="600">${name}</text>`
  })
}

function scaleOf(rows: readonly Row[]): (hosts: number) => number {
  const [least, most] = [Math.log2(rows[0]?.hosts ?? 1), Math.log2(rows.at(-1)?.hosts ?? 2)]
  return hosts => round(LEFT + 14 + (Math.log2(hosts) - least) / Math.max(most - least, 1) * (RIGHT - LEFT - 24))
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
