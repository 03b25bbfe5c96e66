/** What the page asks of the daemon; it can ask nothing that changes anything. */

/** @import { HostEvent } from '../../control/api.ts' */

/** A refusal by the daemon, which did answer. */
export class Refusal extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message)
    this.code = code
  }
}

/** Milliseconds for an answer. */
const PATIENCE_MS = 15_000

/**
 * @template T
 * @param {string} path below /v1/
 * @returns {Promise<T>}
 */
export async function ask(path) {
  const response = await fetch(`../v1/${path}`, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) })
  const answer = /** @type {unknown} */ (await response.json())
  if (response.ok) return /** @type {T} */ (answer)
  const { error } = /** @type {{ error: { code: string, message: string } }} */ (answer)
  throw new Refusal(error.code, error.message)
}

/** Where an image is, below /v1/. @param {string} narHash */
export function imagePath(narHash) {
  return `images/${encodeURIComponent(narHash)}`
}

/**
 * Calls `listener` with what happens, until the signal aborts or the stream ends.
 * @param {(event: HostEvent) => void} listener
 * @param {AbortSignal} signal
 */
export async function follow(listener, signal) {
  const response = await fetch('../v1/events', { cache: 'no-store', signal })
  if (!response.ok || response.body === null) throw new Refusal('refused', 'the daemon tells no events')
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const lines = (rest + value).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) listener(read(line))
  }
}

/** @param {string} line @returns {HostEvent} */
function read(line) {
  const event = /** @type {unknown} */ (JSON.parse(line))
  return /** @type {HostEvent} */ (event)
}
