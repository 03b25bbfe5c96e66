import { ERROR_CODES, type ErrorCode } from '../errors.ts'
import type { ImageEvent } from './states.ts'
import type { Evidence } from './verdict.ts'

/** Why an image is not verified: a code for scripts, what it means and what to do. docs/REASONS.md is made from it. */
export const REASONS = {
  'asked-for': { meaning: 'The image is asked for, and nothing of it has been received yet.', next: 'Wait; `narvik transfers` shows what is under way.' },
  'under-way': { meaning: 'The image is being received or copied.', next: 'Wait; `narvik transfers` shows how far it is.' },
  'being-judged': { meaning: 'All bytes are here, and the verify pipeline reads them.', next: 'Wait; nothing is shown before the verdict.' },
  'stopped': { meaning: 'The daemon stopped while the image was being received.', next: 'Nothing: it goes on from the last checkpoint when a provider is found.' },
  'trying-again': { meaning: 'What was rejected was thrown away, and the image is received anew.', next: 'Wait.' },
  'damaged': { meaning: 'A verified tree was found altered, incomplete or gone; it is out of sight and judged again.', next: 'Look for the cause on this host: `narvik show REF`, the kernel\'s log, the disk.' },
  'wrong-shape': { meaning: 'The tree holds what a NAR can not express, or can not be read.', next: '`narvik show REF` names the entry; `narvik fetch REF` receives it anew.' },
  'wrong-size': { meaning: 'The NAR of the tree has another size than was claimed.', next: '`narvik fetch REF` receives it anew, from other peers where there are any.' },
  'wrong-nar-hash': { meaning: 'The NAR hash of the finished tree is another one: bytes were altered on the way or on the disk.', next: '`narvik show REF` says who sent what; `narvik fetch REF` receives it anew.' },
  'wrong-metadata': { meaning: 'What is said of the image contradicts its bytes.', next: '`narvik show REF` says what; tell the host that publishes it.' },
  'not-registered': { meaning: 'The image lived in the Nix store, and Nix no longer has it.', next: 'Import it again, or fetch it: `narvik fetch REF`.' },
  'altered-in-nix-store': { meaning: 'The image lives in the Nix store, and Nix says that it is not what is registered there.', next: '`nix-store --repair-path PATH`; then import it again, or fetch it.' },
  'too-few-signatures': { meaning: 'Its bytes are right, and too few trusted keys have signed it.', next: 'Add the key to `trust.keys` if you trust it, or fetch by NAR hash; then `narvik fetch REF`.' },
  'unproven': { meaning: 'It failed verification in a way that has no code of its own.', next: '`narvik show REF` has the evidence.' },
} as const satisfies Record<string, { meaning: string, next: string }>

/** A key of `REASONS`; or the code of the error that ended the last try. */
export type ReasonCode = keyof typeof REASONS | ErrorCode

/** The reason for a rejection by the stage of the verify pipeline that failed first. */
export const STAGE_REASONS: Readonly<Record<string, ReasonCode>> = {
  'shape': 'wrong-shape',
  'size': 'wrong-size',
  'nar-hash': 'wrong-nar-hash',
  'metadata': 'wrong-metadata',
  'registration': 'not-registered',
  'nix-store': 'altered-in-nix-store',
  'signatures': 'too-few-signatures',
}

const EVENT_REASONS = {
  create: 'asked-for', start: 'under-way', complete: 'being-judged', interrupt: 'stopped', damage: 'damaged', retry: 'trying-again', fail: 'unproven',
} as const satisfies Partial<Record<ImageEvent | 'create', ReasonCode>>

/** Why an image is where its last change of state has brought it; null where it is verified or removed. */
export function reasonCode({ event, evidence }: { readonly event: string, readonly evidence: Evidence | null }): ReasonCode | null {
  if (event === 'fail') {
    const failed = evidence?.verdict?.stages.find(({ verdict }) => verdict === 'fail')
    return STAGE_REASONS[failed?.stage ?? ''] ?? EVENT_REASONS.fail
  }
  if (event === 'interrupt' && evidence?.error !== undefined && Object.hasOwn(ERROR_CODES, evidence.error)) return evidence.error as ErrorCode
  return Object.hasOwn(EVENT_REASONS, event) ? EVENT_REASONS[event as keyof typeof EVENT_REASONS] : null
}
