import { resolve } from 'node:path'
import { NarvikError } from '../errors.ts'
import type { NarHash } from '../image/nar-hash.ts'
import { dumpTree } from '../nar/dump.ts'
import { hashTree } from '../nar/hash-tree.ts'
import { restoreNar } from '../nar/restore.ts'
import type { Action, Answer, Context } from './outcome.ts'

/** The commands that need no daemon. */

export function hash(path: string): Action {
  return async ({ onProgress }) => proof(await hashTree(resolve(path), { onProgress: meter(onProgress) }))
}

/** With `--json` standard output belongs to the document: it says what the NAR would be. */
export function dump(path: string): Action {
  return context => {
    if (context.json) return hash(path)(context)
    if (context.stdoutIsTerminal) {
      throw new NarvikError('invalid-argument', 'Cannot dump a NAR: found a terminal as standard output, needed a file or a pipe', { hint: `For instance: narvik dump ${path} > image.nar` })
    }
    return Promise.resolve({ stream: dumpTree(resolve(path)) })
  }
}

export function restore(dest: string): Action {
  return async ({ stdin }) => {
    if (stdin.isTTY === true) {
      throw new NarvikError('invalid-argument', 'Cannot restore a NAR: found a terminal as standard input, needed a NAR', { hint: `For instance: narvik restore ${dest} < image.nar` })
    }
    return proof(await restoreNar(stdin, resolve(dest)))
  }
}

function proof({ narHash, narSize }: { readonly narHash: NarHash, readonly narSize: number }): Answer {
  return { json: { narHash, narSize }, text: () => narHash.toSri() }
}

function meter(onProgress: Context['onProgress']): (bytes: number) => void {
  const start = performance.now()
  return bytes => {
    const bytesPerSecond = bytes / Math.max(0.001, (performance.now() - start) / 1000)
    onProgress({ narHash: null, phase: 'hashing', bytes, totalBytes: null, bytesPerSecond, peers: [] })
  }
}
