import { LINK } from './crowd.ts'
import { CHURN, CUT, LARGE, type Row, SEED, SMALL, STEP_MS, throughOneLink, WAY_MS } from './scenarios.ts'

/** docs/SWARM.md. */
export function documentOf(rows: readonly Row[]): string {
  const mbit = LINK.up * 8 / 1000
  const percent = (part: number): string => `${Math.round(100 * part)} %`
  return `# How a swarm grows

One host has an image of ${SMALL} MiB, and all the others want it within the same second. Each has a link of ${mbit} Mbit/s each way, and is at most
${WAY_MS} ms from the middle of the network. The image takes ${throughOneLink({ mebibytes: SMALL }).toFixed(1)} s through one such link: nobody can have it sooner.

![Finishing time, what the seed sent and what was wasted, for a growing number of hosts](swarm.svg)

${table(rows.filter(({ event, mebibytes }) => event === 'none' && mebibytes === SMALL))}

The second in which hosts begin, the finding of each other and the last chunks take about the same time whatever the size. So a larger image, here one of
${LARGE} MiB, which takes ${throughOneLink({ mebibytes: LARGE }).toFixed(1)} s through one link, comes nearer to what a link can do:

${table(rows.filter(({ mebibytes }) => mebibytes === LARGE))}

The ${SMALL} MiB with hosts that come and go, and with a network that falls apart for a while:

${table(rows.filter(({ event }) => event !== 'none'))}

- **× image**: what the seed sent, manifests included, over the size of the image. **wasted**: bytes that came and were not needed, a part of the image for each host.
  **sessions**: those that a host opened to others, on average.
- **comes and goes**: within ${CHURN.withinMs / 1000} s, ${percent(CHURN.rest)} of the hosts are switched off for up to ${CHURN.offMs / 1000} s and go on with what they had proven, ${percent(CHURN.leave)} leave for good,
  and ${percent(CHURN.late)} come later. Those that leave for good are in no figure but the seed's and what is wasted.
- **falls apart**: every ${CUT.every}th host reaches only its like from second ${CUT.from / 1000} to second ${CUT.until / 1000}. Until then the seed has sent no more than in a network that stays whole.
  Those that were cut off had shared among themselves what of the image was with them, a quarter of it; when they are back, all that they lack
  comes to them at the full speed of their links, and the seed is one of those that they ask. That is what it sends more: they have known it since the first second,
  and so it has more sessions with them than other hosts that have the image by now.

## How this was found

\`\`\`sh
npm run simulate                         # all of it, into this document and its plot; the 1,000 hosts take minutes
npm run simulate -- 8 64:churn 125/256   # some rows of it: 8 hosts, 64 that come and go, 125 and 256 MiB
\`\`\`

It is a simulation in virtual time. What decides is the product's own code: the scheduler, the serving policy with its turns and choices, who is named to whom,
who makes room for whom, and the pause between two messages of news. How providers are found and left follows \`src/tasks/swarm/sources.ts\` and
\`src/tasks/providers.ts\`. The links are fluids that are shared out as fairly as can be, less the headers of packets, records and frames; small messages take
their part of them, and what waits before a full link waits 50 ms. The manifest comes through the same links; a host gives it to eight others at once.
Disks and processors take no time. A step of virtual time is ${STEP_MS} ms.

Random number ${SEED} gives these runs again, exactly: each row has the trace of its run, a hash over every message of chunks, with its time and both of its hosts.
A test compares a row with what the simulation gives. \`npm run bench:swarm -- flash-crowd\` runs real daemons behind shaped links, and beside them the
simulation of the same crowd.

| hosts | image | | trace |
|---|---|---|---|
${rows.map(({ hosts, mebibytes, event, trace }) => `| ${number(hosts)} | ${mebibytes} MiB | ${EVENTS[event]} | \`${trace}\` |`).join('\n')}

${NEEDS}`
}

const NEEDS = `## What large swarms need

- Hosts that come at the same time are named to each other, fill their 32 places for sources with each other, and soon have the same chunks, while what
  they lack is elsewhere. So a source that has had nothing to give for a while makes room for a host that was not asked yet, and hosts are named in no order.
- Of chunks that only one host has, the asker names more than it wants, and the holder gives those that it has given least. So the seed sends hardly anything twice before
  all of it is out.
- A host asks for the rarest chunks of a window of some 32 MiB that moves through the image, so that it can hash what has come while the rest comes. Within
  a crowd that starts together this costs nothing against asking anywhere. A host that comes late finds all of its window with many; those that have
  the whole image it asks for what is rare beyond it, so that they go on feeding the hosts that are ahead.
`

const EVENTS = { none: '', churn: 'comes and goes', cut: 'falls apart' } as const

function table(rows: readonly Row[]): string {
  const isPlain = rows.every(({ event }) => event === 'none')
  const cells = rows.map(row => [
    number(row.hosts), ...isPlain ? [] : [EVENTS[row.event]], `${row.first.toFixed(1)} s`, `${row.median.toFixed(1)} s`, `${row.last.toFixed(1)} s`, (row.last / throughOneLink(row)).toFixed(2),
    row.seedSent.toFixed(2), `${(100 * row.wasted).toFixed(2)} %`, String(row.sessions),
  ])
  const head = ['hosts', ...isPlain ? [] : [''], 'first host', 'middle', 'last host', '× one link', 'seed sent, × image', 'wasted', 'sessions']
  return [head, head.map(() => '---'), ...cells].map(line => `| ${line.join(' | ')} |`).join('\n')
}

function number(value: number): string {
  return value.toLocaleString('en')
}
