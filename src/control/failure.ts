import { ERROR_CODES, isNarvikError, messageOf, NarvikError, systemCode } from '../errors.ts'
import { MAX_CONTROL_BODY_BYTES } from '../limits.ts'
import type { ErrorBody } from './api.ts'

/** The HTTP status and the body for anything that was thrown while a request was answered. */
export function failureOf(error: unknown): { readonly status: number, readonly body: ErrorBody } {
  const { code, message, hint = null } = toNarvikError(error)
  return { status: ERROR_CODES[code].http, body: { code, message, hint } }
}

/** What the HTTP library refuses is the client's mistake; whatever else is no NarvikError is ours. */
export function toNarvikError(error: unknown): NarvikError {
  if (isNarvikError(error)) return error
  switch (systemCode(error)) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new NarvikError('too-large', `Cannot take the request: found a body over the limit, needed at most ${MAX_CONTROL_BODY_BYTES} bytes`)
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new NarvikError('invalid-argument', 'Cannot take the request: found a body of another type, needed application/json', { hint: 'With curl, use --json instead of --data' })
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new NarvikError('invalid-argument', 'Cannot take the request: found an address that can not be read, needed /v1/… with %-escapes')
  }
  if (isClientMistake(error)) return new NarvikError('invalid-argument', `Cannot take the request: found "${messageOf(error)}", needed a JSON object`)
  return new NarvikError('internal', `Cannot answer the request: found ${messageOf(error)}, needed no error`, { cause: error })
}

function isClientMistake(error: unknown): boolean {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' && error.statusCode >= 400 && error.statusCode < 500
}
