import { stripVTControlCharacters } from 'node:util'

export type NixFlavour = 'nix' | 'lix' | 'determinate' | 'unknown'

export interface NixVersion {
  readonly flavour: NixFlavour
  /** As printed, for instance `2.8.0` or `2.36.0pre20260822_88b09c6`. */
  readonly version: string
  readonly major: number
  readonly minor: number
}

/** Reads what `nix --version` prints: `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.91.0`, `nix (Determinate Nix 3.8.0) 2.30.1`. */
export function parseNixVersion(text: string): NixVersion | undefined {
  const [line = ''] = stripVTControlCharacters(text).trim().split('\n')
  const match = /^nix (?:\(([^)]{0,100})\) )?((\d{1,4})\.(\d{1,4})[0-9A-Za-z.+_-]{0,80})$/.exec(line.trim())
  if (match === null) return undefined
  const [, product, version = '', major, minor] = match
  return { flavour: flavourOf(product), version, major: Number(major), minor: Number(minor) }
}

/** Whether the `nix` command has the settings and subcommands that Narvik uses. */
export function isSupported(version: NixVersion): boolean {
  return isAtLeast(version, 2, 4)
}

/** Whether `nix path-info --json` should be told which format to print: the default is deprecated and bound to change. */
export function hasJsonFormat(version: NixVersion): boolean {
  return version.flavour !== 'lix' && isAtLeast(version, 2, 33)
}

function isAtLeast({ major, minor }: NixVersion, wantedMajor: number, wantedMinor: number): boolean {
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

function flavourOf(product: string | undefined): NixFlavour {
  if (product === undefined || product === 'Nix') return 'nix'
  if (product.startsWith('Lix')) return 'lix'
  return product.startsWith('Determinate') ? 'determinate' : 'unknown'
}
