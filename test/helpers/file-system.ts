import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'

/** One step that changes, or could fail to change, what is on disk. */
export interface Step {
  readonly call: string
  /** The first argument; empty for a call on an open file. */
  readonly path: string
}

const CALLS = ['rename', 'mkdir', 'unlink', 'rmdir', 'symlink', 'chmod'] as const
const HANDLE_CALLS = ['writeFile', 'sync', 'chmod'] as const

type Anything = (this: unknown, ...args: unknown[]) => Promise<unknown>
type Patched = Record<string, Anything>

/** Calls `before` ahead of each step that any code takes through `node:fs/promises` while `work` runs; it may throw. */
export async function watchSteps(before: (step: Step) => void, work: () => Promise<void>): Promise<void> {
  const functions = promises as unknown as Patched
  const handle = await handlePrototype()
  const onHandle = ({ call }: Step): void => { before({ call, path: '' }) }
  const undo = [...CALLS.map(call => patch(functions, call, before)), ...HANDLE_CALLS.map(call => patch(handle, call, onHandle))]
  syncBuiltinESMExports()
  try {
    await work()
  } finally {
    for (const restore of undo) restore()
    syncBuiltinESMExports()
  }
}

function patch(target: Patched, call: string, before: (step: Step) => void): () => void {
  const original = target[call]
  if (original === undefined) throw new TypeError(`there is no ${call}`)
  target[call] = async function (...args) {
    before({ call, path: typeof args[0] === 'string' ? args[0] : '' })
    return await original.apply(this, args)
  }
  return () => { target[call] = original }
}

async function handlePrototype(): Promise<Patched> {
  const handle = await promises.open('/dev/null')
  await handle.close()
  return Object.getPrototypeOf(handle) as Patched
}
