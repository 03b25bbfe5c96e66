import { expect } from 'vitest'
import { isNarvikError, type ErrorCode } from '../../src/errors.ts'

/** What a promise is rejected with. */
export async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

/** That a promise is rejected with a NarvikError of this code, whose text fits. */
export async function expectFailure(promise: Promise<unknown>, code: ErrorCode, text: RegExp): Promise<void> {
  const error = await failureOf(promise)
  expect(isNarvikError(error, code), String(error)).toBe(true)
  expect(String(error)).toMatch(text)
}
