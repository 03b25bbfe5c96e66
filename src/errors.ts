/**
 * Every kind of failure that Narvik reports. `exit` is the exit code of the command line, `http` the status of the
 * control API, `meaning` the sentence that docs/ERRORS.md carries.
 */
export const ERROR_CODES = {
  'internal': { exit: 1, http: 500, meaning: 'Narvik did something that it never should; please report it.' },
  'invalid-argument': { exit: 2, http: 400, meaning: 'The command or request is not of the form that is needed.' },
  'invalid-config': { exit: 2, http: 400, meaning: 'The configuration file, an environment variable or a flag has a value that is not allowed.' },
  'unreachable': { exit: 3, http: 503, meaning: 'No daemon answers on the control socket.' },
  'not-found': { exit: 4, http: 404, meaning: 'The catalog has no such image, or the file system no such file.' },
  'no-provider': { exit: 4, http: 404, meaning: 'No reachable peer holds the image.' },
  'verification-failed': { exit: 5, http: 422, meaning: 'The bytes are not those of the NAR hash; the image is rejected.' },
  'refused': { exit: 6, http: 403, meaning: 'A policy of this host forbids it.' },
  'timed-out': { exit: 7, http: 504, meaning: 'It did not finish in the time that was given.' },
  'name-taken': { exit: 1, http: 409, meaning: 'Another image has this name already.' },
  'conflict': { exit: 1, http: 409, meaning: 'The image is in a state, or a file in a place, that does not allow it.' },
  'in-use': { exit: 1, http: 409, meaning: 'Another daemon has the data directory or the control socket.' },
  'unsupported-file': { exit: 1, http: 422, meaning: 'The tree has a file that a NAR can not express: a socket, fifo or device.' },
  'unreadable': { exit: 1, http: 422, meaning: 'A file of the tree can not be read by the daemon.' },
  'changed-while-reading': { exit: 1, http: 409, meaning: 'A file of the tree changed while it was being read.' },
  'invalid-nar': { exit: 1, http: 422, meaning: 'The NAR is malformed; the message has the byte offset.' },
  'invalid-manifest': { exit: 5, http: 422, meaning: 'The manifest is malformed, too large, or not that of the image.' },
  'too-large': { exit: 1, http: 413, meaning: 'Something is over its limit.' },
  'disk-full': { exit: 1, http: 507, meaning: 'The disk has no room; nothing was lost.' },
  'over-quota': { exit: 1, http: 507, meaning: 'The quota on what Narvik stores has no room, and nothing more may be collected.' },
  'io-error': { exit: 1, http: 500, meaning: 'The file system answered with an error.' },
  'corrupt-catalog': { exit: 1, http: 500, meaning: 'The catalog can not be read, or is of a newer Narvik.' },
  'peer-failed': { exit: 1, http: 502, meaning: 'A peer broke the protocol, disappeared or stalled.' },
  'nix-failed': { exit: 1, http: 502, meaning: 'Nix failed; the message has what it said.' },
  'unhealthy': { exit: 1, http: 500, meaning: '`narvik doctor` found something that keeps this host from working.' },
  'cancelled': { exit: 1, http: 409, meaning: 'Somebody gave the fetch up with `narvik cancel`.' },
  'interrupted': { exit: 1, http: 503, meaning: 'The daemon is stopping; what was received is kept and goes on after the next start.' },
} as const satisfies Record<string, { exit: number, http: number, meaning: string }>

export type ErrorCode = keyof typeof ERROR_CODES

export interface ErrorDetails {
  /** What to do next, in one sentence. */
  readonly hint?: string
  readonly cause?: unknown
}

/**
 * An error that a person or a script is meant to see. The message reads `Cannot <do what>: found <what is>, needed
 * <what should be>`, without a final period.
 */
export class NarvikError extends Error {
  override readonly name = 'NarvikError'
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.hint = details.hint
  }
}

/** Whether `error` is a NarvikError, of one of the given codes where there are any. */
export function isNarvikError(error: unknown, ...codes: ErrorCode[]): error is NarvikError {
  return error instanceof NarvikError && (codes.length === 0 || codes.includes(error.code))
}

/** The code of anything that was thrown; what is none of ours is a mistake of ours. */
export function codeOf(error: unknown): ErrorCode {
  return error instanceof NarvikError ? error.code : 'internal'
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The code of a system error (`ENOENT`, …), or undefined for any other. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/**
 * Turns a file system error into a NarvikError with the fitting code; a NarvikError passes unchanged.
 * `action` completes `Cannot …`, for instance `read /srv/images/a`.
 */
export function fromSystemError(error: unknown, action: string): NarvikError {
  if (error instanceof NarvikError) return error
  const system = systemCode(error)
  const code = system === undefined ? 'io-error' : isLost(error) ? 'unreadable' : SYSTEM_CODES[system] ?? 'io-error'
  const hint = system === 'EIO' || system === 'EROFS' ? { hint: DISK_HINT } : hintFor(code)
  return new NarvikError(code, `Cannot ${action}: ${messageOf(error)}`, { cause: error, ...hint })
}

/** Whether the disk has lost what was to be read from it. */
function isLost(error: unknown): boolean {
  return systemCode(error) === 'EIO' && error instanceof Error && 'syscall' in error && error.syscall === 'read'
}

const SYSTEM_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'not-found',
  EACCES: 'unreadable',
  EPERM: 'unreadable',
  ENOSPC: 'disk-full',
  EDQUOT: 'disk-full',
  EEXIST: 'conflict',
}

function hintFor(code: ErrorCode): { hint?: string } {
  if (code === 'disk-full') return { hint: 'Make room on the disk; what is on it is complete and a retry goes on from there' }
  if (code === 'unreadable') return { hint: 'Give the user that the daemon runs as the right to read it' }
  return {}
}

/** What a person looks at who is told that the disk fails. */
export const DISK_HINT = 'The disk fails, or the kernel has made it read-only after it did: see dmesg, and "The way back" in docs/OPERATIONS.md'
