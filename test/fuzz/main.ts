// npm run fuzz -- TARGET|all [--seconds N] [--seed N] [--keep]: changes inputs of every decoder, guided by the blocks that they reach. An input that
// goes wrong is printed, kept under test/fuzz/regressions, and ends it with 1. --keep writes down the inputs that reach something new.
import { parseArgs } from 'node:util'
import type { Target } from './engine.ts'
import { fuzz } from './engine.ts'
import { instrument } from './instrument.ts'
import { addRegression, readKept, writeCorpus } from './kept.ts'

const { values, positionals: [chosen = 'all'] } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '10' }, runs: { type: 'string' }, seed: { type: 'string', default: String(Date.now() % 1_000_000) }, keep: { type: 'boolean', default: false } },
})
const code = instrument()
const { TARGETS } = await import('./targets.ts') as { TARGETS: Readonly<Record<string, Target>> }
const names = chosen === 'all' ? Object.keys(TARGETS) : [chosen]
const most = values.runs === undefined ? Infinity : Number(values.runs)

for (const name of names) {
  const target = TARGETS[name]
  if (target === undefined) {
    process.stderr.write(`Cannot fuzz ${name}: found no such target, needed all or one of ${Object.keys(TARGETS).join(', ')}\n`)
    process.exit(2)
  }
  const end = performance.now() + Number(values.seconds) * 1000
  const corpus = [...readKept('regressions', name), ...readKept('corpus', name)]
  const { runs, corpus: kept, reached, finding } = await fuzz(target, code, { seed: Number(values.seed), corpus, isOver: done => done >= most || performance.now() > end })
  process.stdout.write(`${name}: ${runs} runs, ${reached} blocks, ${kept.length} inputs, seed ${values.seed}\n`)
  if (values.keep) writeCorpus(name, kept)
  if (finding === undefined) continue
  process.stderr.write(`${name}: ${Buffer.from(finding.bytes).toString('base64')}\n${finding.error instanceof Error ? finding.error.stack : String(finding.error)}\n`)
  addRegression(name, finding.bytes, finding.error instanceof Error ? finding.error.message : String(finding.error))
  process.exitCode = 1
}
