import { resolve } from 'node:path'
import { createFleetKey, fleetFingerprint, readFleetKey } from '../fleet-key.ts'
import type { Action, Answer } from './outcome.ts'
import { fields } from './table.ts'

/** The commands about the fleet's key; they need no daemon. The key itself is never printed. */

export function fleetCreate(file: string): Action {
  return async () => shown(resolve(file), await createFleetKey(resolve(file)))
}

export function fleetShow(file: string): Action {
  return async () => shown(resolve(file), await readFleetKey(resolve(file)))
}

function shown(file: string, key: Uint8Array): Answer {
  const fingerprint = fleetFingerprint(key)
  return { json: { file, fingerprint }, text: paint => fields({ file, fingerprint }, paint) }
}
