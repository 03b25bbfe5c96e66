import { NarvikError } from '../errors.ts'

/** The states of an image, in the order in which a good one passes them. */
export const STATES = ['wanted', 'receiving', 'quarantined', 'verified', 'rejected'] as const
export type ImageState = (typeof STATES)[number]

export const EVENTS = ['start', 'interrupt', 'complete', 'pass', 'fail', 'damage', 'retry'] as const
export type ImageEvent = (typeof EVENTS)[number]

/**
 * Every legal change of state; what is not here can not happen. The catalog's transition function and its SQL `CHECK`
 * are made from this table.
 *
 * ```
 *  wanted ──start──▶ receiving ──complete──▶ quarantined ──pass──▶ verified
 *     ▲                 │                        │                    │
 *     └───interrupt─────┘                        └──fail──▶ rejected  └──damage──▶ quarantined
 *     ▲──────────────────────retry──────────────────────────┘
 * ```
 */
export const TRANSITIONS: Readonly<Record<ImageState, Readonly<Partial<Record<ImageEvent, ImageState>>>>> = {
  wanted: { start: 'receiving' },
  receiving: { complete: 'quarantined', interrupt: 'wanted' },
  quarantined: { pass: 'verified', fail: 'rejected' },
  verified: { damage: 'quarantined' },
  rejected: { retry: 'wanted' },
}

/**
 * The state after `event`.
 * @throws NarvikError `conflict` where the table has no such transition.
 */
export function nextState(state: ImageState, event: ImageEvent): ImageState {
  const next = TRANSITIONS[state][event]
  if (next === undefined) {
    throw new NarvikError('conflict', `Cannot ${event} an image: found it ${state}, needed it ${sourcesOf(event).join(' or ')}`)
  }
  return next
}

function sourcesOf(event: ImageEvent): ImageState[] {
  return STATES.filter(state => TRANSITIONS[state][event] !== undefined)
}
