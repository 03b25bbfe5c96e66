import type { ControlClient } from '../control/client.ts'
import type { Progress } from '../control/api.ts'
import type { NarvikError } from '../errors.ts'
import type { Paint } from './table.ts'

/** What a command comes to. */
export type Outcome = Answer | { readonly answers: AsyncIterable<Answer> } | { readonly stream: AsyncIterable<Uint8Array> }

export interface Answer {
  /** The document that `--json` prints. */
  readonly json: unknown
  readonly text: (paint: Paint) => string
  /** Set where the answer itself says that something is wrong: it decides the exit code. */
  readonly failure?: NarvikError
}

/** What a command may use of the terminal and the daemon. */
export interface Context {
  readonly json: boolean
  /** Looked for when it is first asked: offline commands need none. */
  readonly client: () => ControlClient
  readonly onProgress: (progress: Progress) => void
  readonly stdin: AsyncIterable<Uint8Array> & { readonly isTTY?: boolean }
  readonly stdoutIsTerminal: boolean
}

export type Action = (context: Context) => Promise<Outcome>
