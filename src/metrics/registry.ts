/** One line of a metric: the value under some labels. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Metric {
  /** Prometheus' naming: `narvik_…`, with the unit, and `_total` for what only grows. */
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge'
  /** The samples of this moment. */
  readonly collect: () => readonly Sample[] | Promise<readonly Sample[]>
}

/**
 * A number that only grows, under labels whose values are few. What is known to come is there as 0 from the start: Prometheus sees no increase
 * in what appears as 1, so that an alert would miss the first of all.
 */
export class Counter {
  readonly #values = new Map<string, { readonly labels: Readonly<Record<string, string>>, value: number }>()

  constructor(known: readonly Readonly<Record<string, string>>[] = []) {
    for (const labels of known) this.add(labels, 0)
  }

  add(labels: Readonly<Record<string, string>>, amount = 1): void {
    const key = JSON.stringify(labels)
    const sample = this.#values.get(key)
    if (sample === undefined) this.#values.set(key, { labels, value: amount })
    else sample.value += amount
  }

  samples(): readonly Sample[] {
    return [...this.#values.values()]
  }
}

/**
 * The text exposition format of Prometheus, version 0.0.4.
 * See https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export async function expose(metrics: readonly Metric[]): Promise<string> {
  const blocks = await Promise.all(metrics.map(async ({ name, help, type, collect }) => {
    const samples = await collect()
    const lines = samples.map(({ labels, value }) => `${name}${labelText(labels)} ${value}`)
    return [`# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`, `# TYPE ${name} ${type}`, ...lines].join('\n')
  }))
  return `${blocks.join('\n')}\n`
}

/** What `content-type` says of the text. */
export const EXPOSITION_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

function labelText(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`)
  return parts.length === 0 ? '' : `{${parts.join(',')}}`
}
