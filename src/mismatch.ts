import type { z } from 'zod'

/** The parts of a message about a value that its schema refuses. */
export interface Mismatch {
  /** Dotted path of the field; empty for the value itself. */
  readonly field: string
  readonly found: string
  readonly needed: string
}

/** The first thing that is wrong with `input`, in words that fit `found …, needed …`. */
export function explainMismatch({ issues }: z.ZodError, input: unknown): Mismatch {
  const [issue] = issues
  if (issue === undefined) return { field: '', found: shown(input), needed: 'another value' }
  const field = issue.path.map(String).join('.')
  const value = issue.path.reduce<unknown>(step, input)
  if (issue.code === 'unrecognized_keys') {
    return { field, found: `an unknown field ${issue.keys.map(key => JSON.stringify(key)).join(', ')}`, needed: 'only known ones' }
  }
  return { field, found: shown(value), needed: wanted(issue) }
}

function step(value: unknown, key: PropertyKey): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? (value as Record<PropertyKey, unknown>)[key] : undefined
}

function shown(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value)
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}

/** Zod words its own messages `Invalid input: expected string, received number` or `Too big: expected number to be <=5`. */
function wanted({ message }: z.core.$ZodIssue): string {
  return message.replace(/^(?:Invalid (?:input|option|string)|Too (?:big|small)): (?:expected )?/, '').replace(/, received .*$/, '')
}
