import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { renderReasons } from '../../../scripts/docs.ts'
import { ERROR_CODES } from '../../../src/errors.ts'
import { REASONS, reasonCode, STAGE_REASONS } from '../../../src/image/reasons.ts'
import { EVENTS, TRANSITIONS } from '../../../src/image/states.ts'

test('docs/REASONS.md is what the code makes', () => {
  expect(readFileSync('docs/REASONS.md', 'utf8'), 'run node scripts/docs.ts').toBe(renderReasons())
})

test('every way into a state other than verified has a reason, and the others have none', () => {
  const ends = Object.values(TRANSITIONS).flatMap(events => Object.entries(events))
  expect(ends.map(([event]) => event).toSorted()).toEqual([...EVENTS].toSorted())
  for (const [event, state] of ends) expect(reasonCode({ event, evidence: null }) === null, event).toBe(state === 'verified')
  expect(reasonCode({ event: 'create', evidence: null })).toBe('asked-for')
  expect(reasonCode({ event: 'remove', evidence: null })).toBeNull()
})

test('every stage of the pipeline has a reason of its own', () => {
  const source = ['src/verify/pipeline.ts', 'src/verify/trust.ts'].map(file => readFileSync(file, 'utf8')).join('')
  const stages = new Set([...source.matchAll(/(?:stage: |comparison\(|StageResult\(|stage\()'([a-z-]+)'/g)].map(([, stage]) => stage))
  expect([...stages].filter(stage => STAGE_REASONS[stage ?? ''] === undefined)).toEqual([])
  expect(stages.size).toBeGreaterThan(1)
})

test('a failure has the code of its first failed stage, an interruption that of its error', () => {
  const stage = (name: string, verdict: 'pass' | 'fail') => ({ stage: name, verdict, detail: '', milliseconds: 1 })
  const failed = (...stages: ReturnType<typeof stage>[]) => reasonCode({ event: 'fail', evidence: { verdict: { verdict: 'fail', stages, reason: null } } })
  expect(failed(stage('shape', 'pass'), stage('nar-hash', 'fail'), stage('signatures', 'fail'))).toBe('wrong-nar-hash')
  expect(failed(stage('of another version', 'fail'))).toBe('unproven')
  expect(reasonCode({ event: 'interrupt', evidence: { error: 'disk-full' } })).toBe('disk-full')
  expect(reasonCode({ event: 'interrupt', evidence: { error: 'toString' } })).toBe('stopped')
})

test('no reason has the code of an error', () => {
  expect(Object.keys(REASONS).filter(code => Object.hasOwn(ERROR_CODES, code))).toEqual([])
})
