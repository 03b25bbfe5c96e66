import { stripVTControlCharacters } from 'node:util'
import { NarvikError, type ErrorDetails } from '../errors.ts'

/**
 * Why Nix did not answer. `missing`: no such program, or no store. `too-old`: it does not know what it was asked.
 * `killed`: something else ended it. `bad-output`: it answered what cannot be true, or more than is taken.
 */
export const NIX_FAILURES = ['missing', 'too-old', 'feature-disabled', 'timed-out', 'killed', 'bad-output', 'not-valid', 'permission', 'failed'] as const
export type NixFailure = (typeof NIX_FAILURES)[number]

/** A failure of the `nix` program, or of its answer; the code is `timed-out` where it took too long, else `nix-failed`. */
export class NixError extends NarvikError {
  readonly kind: NixFailure

  constructor(kind: NixFailure, message: string, details: ErrorDetails = {}) {
    const hint = details.hint ?? HINTS[kind]
    super(kind === 'timed-out' ? 'timed-out' : 'nix-failed', message, hint === undefined ? details : { ...details, hint })
    this.kind = kind
  }
}

const HINTS: Readonly<Partial<Record<NixFailure, string>>> = {
  'missing': 'Install Nix or set nix.bin_dir; images that are no store paths need no Nix',
  'too-old': 'Narvik needs Nix 2.4 or newer, or Lix',
  'timed-out': 'See whether the Nix daemon answers (nix store ping), or raise nix.query_timeout_seconds',
  'permission': 'Let the user that the daemon runs as use Nix: see allowed-users and trusted-users in nix.conf',
}

/** What a message that Nix wrote to standard error says about the kind of the failure (nix 2.8 to 2.35, Lix). */
export function classifyMessage(message: string): NixFailure {
  for (const [kind, pattern] of PATTERNS) if (pattern.test(message)) return kind
  return 'failed'
}

const PATTERNS: readonly (readonly [NixFailure, RegExp])[] = [
  ['feature-disabled', /experimental (?:Nix )?feature '[^']*' is disabled/],
  ['too-old', /unrecogni[sz]ed flag|is not a recogni[sz]ed command|unknown (?:flag|command)/],
  ['permission', /permission denied|operation not permitted|read-only file system|you are not privileged|lacks? a (?:valid )?signature/i],
  ['not-valid', /path '[^']*' is not valid|is not a valid store path|build of '[^']*' failed|is required, but there is no substituter|does not exist and cannot be (?:built|created)/],
]

const SHOWN_CHARACTERS = 600

/**
 * What Nix said, as it may stand in a message: one line, without colours, warnings last, bounded. Nix says the reason at
 * the end, so of a long text it is the end that is kept.
 */
export function whatNixSaid(stderr: string): string {
  const lines = stripVTControlCharacters(stderr).split(/[\r\n]+/).map(line => line.trim()).filter(line => line !== '')
  const errors = lines.findIndex(line => line.startsWith('error:'))
  const text = printable((errors === -1 ? lines : lines.slice(errors)).join(' '))
  if (text === '') return 'nothing'
  return text.length > SHOWN_CHARACTERS ? `…${text.slice(-SHOWN_CHARACTERS)}` : text
}

function printable(text: string): string {
  return text.replaceAll('\t', ' ').replace(/\p{Cc}/gu, '?')
}
