import { mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { execa } from 'execa'
import { linesOf, type Result } from './result.ts'

/** Facts of the machine and of the programs that figures depend on. */
export type Machine = Readonly<Record<string, string>>

export async function describeMachine(versions: Readonly<Record<string, string>>): Promise<Machine> {
  const { stdout: commit } = await execa('git', ['describe', '--always', '--dirty'], { cwd: import.meta.dirname, reject: false })
  return {
    date: new Date().toISOString(),
    commit,
    cpu: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
    memory: `${(totalmem() / 1024 ** 3).toFixed(0)} GiB`,
    kernel: release(),
    node: process.version,
    ...versions,
  }
}

/** What other work the machine had, over the last minute. */
export function load(): string {
  return (loadavg()[0] ?? 0).toFixed(1)
}

/** Writes `NAME.json` and `NAME.md` under bench/results/. */
export async function keep(name: string, introduction: string, machine: Machine, results: readonly Result[]): Promise<void> {
  const dir = new URL('results/', import.meta.url)
  await mkdir(dir, { recursive: true })
  await writeFile(new URL(`${name}.json`, dir), `${JSON.stringify({ machine, results }, undefined, 2)}\n`)
  await writeFile(new URL(`${name}.md`, dir), markdown(introduction, machine, results))
}

function markdown(introduction: string, machine: Machine, results: readonly Result[]): string {
  const facts = Object.entries(machine).map(([fact, value]) => `- ${fact}: ${value}`)
  return ['# Benchmarks', '', introduction, '', ...facts, '', results.map(section).join('\n\n'), ''].join('\n')
}

function section(result: Result): string {
  const { name, table } = result
  const [, ...lines] = linesOf({ ...result, table: undefined })
  const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  const rows = table === undefined ? [] : [row(table.columns), row(table.columns.map(() => '---')), ...table.rows.map(row), '']
  return [`## ${name}`, '', ...rows, ...lines.map(line => `- ${line.trim()}`)].join('\n')
}
