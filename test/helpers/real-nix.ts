import { execa } from 'execa'

const FEATURES = { NIX_CONFIG: 'experimental-features = nix-command' }

/** The NAR hash of a tree as the real Nix computes it, SRI. Nix is required: without it the test fails. */
export async function nixHashPath(path: string): Promise<string> {
  const { stdout } = await execa('nix', ['hash', 'path', path], { env: FEATURES })
  return stdout.trim()
}
