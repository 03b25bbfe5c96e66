import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { directory, type Entry, entryBytes, narBytes, nested, nodeBytes, regular, str, symlink, tokens } from '../../helpers/nar-bytes.ts'

/*
 * Writes the NARs of this folder and cases.json with what each must give: `node test/vectors/nar/make.ts`. All bytes are made here;
 * the good ones are compared with what the real Nix dumps by the test that runs them.
 */

interface Case {
  readonly nar: Buffer
  /** The byte at which a bad one is refused, and words of the reason. */
  readonly at?: number
  readonly reason?: string
}

const MAGIC = str('nix-archive-1')
const FILE = nodeBytes(regular('x'))

function good(...entries: (readonly [string, ReturnType<typeof regular>])[]): Case {
  return { nar: narBytes(directory(entries.map(([name, tree]): Entry => ({ name: Buffer.from(name, 'latin1'), tree })))) }
}

function bad(at: number, reason: string, ...parts: (string | Uint8Array)[]): Case {
  return { nar: Buffer.concat([MAGIC, tokens(...parts)]), at, reason }
}

/** A directory with these entries; its first entry's name begins at byte 128. */
function badDirectory(at: number, reason: string, ...entries: Uint8Array[]): Case {
  return bad(at, reason, '(', 'type', 'directory', ...entries, ')')
}

function patched(nar: Buffer, at: number, byte: number): Buffer {
  const copy = Buffer.from(nar)
  copy[at] = byte
  return copy
}

function lengthOf(length: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(length)
  return bytes
}

const CASES: Record<string, Case> = {
  'good-empty-file': { nar: narBytes(regular('')) },
  'good-seven-bytes': { nar: narBytes(regular('1234567')) },
  'good-eight-bytes': { nar: narBytes(regular('12345678')) },
  'good-nine-bytes': { nar: narBytes(regular('123456789')) },
  'good-executable': { nar: narBytes(regular('#!/bin/sh\n', true)) },
  'good-empty-executable': { nar: narBytes(regular('', true)) },
  'good-symlink': { nar: narBytes(symlink('target')) },
  'good-symlink-out': { nar: narBytes(symlink('../../../etc/passwd')) },
  'good-symlink-4095': { nar: narBytes(symlink('a/'.repeat(2047) + 'a')) },
  'good-symlink-bytes': { nar: narBytes(symlink('\xff\xfe\n')) },
  'good-empty-directory': { nar: narBytes(directory()) },
  'good-nested-empty': good(['a', directory({ b: directory() })], ['c', directory()]),
  'good-name-255': good(['n'.repeat(255), regular('x')]),
  'good-name-newline': good(['a\nb', regular('x')]),
  'good-name-backslash': good(['..\\a', regular('x')]),
  'good-name-not-utf8': good(['\x80', regular('1')], ['\xff\xfe', regular('2')]),
  'good-name-dots': good(['...', regular('1')], ['..a', regular('2')], ['.a', regular('3')]),
  'good-order-bytes': good(['A', regular('1')], ['B', regular('2')], ['a', regular('3')], ['a-b', regular('4')], ['a0', regular('5')], ['\xef\xbf\xbd', regular('6')], ['\xf0\x9f\x98\x80', regular('7')]),
  'good-case-hack-name': good(['a~nix~case~hack~1', regular('x')]),
  'good-depth-63': { nar: narBytes(nested(63, regular('x'))) },
  'bad-empty': { nar: Buffer.alloc(0), at: 0, reason: 'end of the stream' },
  'bad-magic': { nar: Buffer.concat([str('nix-archive-2'), FILE]), at: 0, reason: 'nix-archive-1' },
  'bad-magic-padding': { nar: patched(narBytes(regular('x')), 22, 1), at: 22, reason: 'padding byte 1' },
  'bad-tag-length': bad(24, 'a tag of 33 bytes', lengthOf(33n), Buffer.alloc(40)),
  'bad-tag-length-huge': bad(24, 'a tag of 1099511627776 bytes', lengthOf(2n ** 40n)),
  'bad-tag-length-negative': bad(24, 'a tag of', lengthOf(2n ** 64n - 1n)),
  'bad-type': bad(56, "the type 'fifo'", '(', 'type', 'fifo', ')'),
  'bad-no-type': bad(40, "needed 'type'", '(', 'contents', str('x'), ')'),
  'bad-type-twice': bad(72, "found 'type'", '(', 'type', 'regular', 'type', 'regular', 'contents', str('x'), ')'),
  'bad-no-contents': bad(72, "found ')'", '(', 'type', 'regular', ')'),
  'bad-contents-twice': bad(104, "found 'contents'", '(', 'type', 'regular', 'contents', str('x'), 'contents', str('y'), ')'),
  'bad-executable-value': bad(96, "found 'x', needed ''", '(', 'type', 'regular', 'executable', 'x', 'contents', str('x'), ')'),
  'bad-executable-twice': bad(104, "found 'executable'", '(', 'type', 'regular', 'executable', '', 'executable', '', 'contents', str('x'), ')'),
  'bad-executable-after': bad(104, "found 'executable'", '(', 'type', 'regular', 'contents', str('x'), 'executable', '', ')'),
  'bad-contents-padding': { nar: patched(narBytes(regular('x')), 103, 7), at: 103, reason: 'padding byte 7' },
  'bad-contents-cut': { nar: narBytes(regular('x'.repeat(100))).subarray(0, 150), at: 150, reason: 'end of the stream' },
  'bad-contents-huge': bad(96, 'end of the stream', '(', 'type', 'regular', 'contents', lengthOf(2n ** 43n)),
  'bad-contents-over-limit': bad(88, 'contents of 9223372036854775808 bytes', '(', 'type', 'regular', 'contents', lengthOf(2n ** 63n), Buffer.alloc(64)),
  'bad-padding-cut': { nar: narBytes(regular('x')).subarray(0, 100), at: 100, reason: 'end of the stream' },
  'bad-end-cut': { nar: narBytes(regular('x')).subarray(0, -1), at: 119, reason: 'end of the stream' },
  'bad-trailing': { nar: Buffer.concat([narBytes(regular('x')), Buffer.alloc(1)]), at: 120, reason: 'after the end' },
  'bad-two-nars': { nar: Buffer.concat([narBytes(regular('x')), narBytes(regular('x'))]), at: 120, reason: 'after the end' },
  'bad-name-empty': badDirectory(128, 'an empty name', entryBytes('', FILE)),
  'bad-name-dot': badDirectory(128, 'the name .', entryBytes('.', FILE)),
  'bad-name-dotdot': badDirectory(128, 'the name ..', entryBytes('..', FILE)),
  'bad-name-slash': badDirectory(128, 'without /', entryBytes('../x', FILE)),
  'bad-name-absolute': badDirectory(128, 'without /', entryBytes('/x', FILE)),
  'bad-name-nul': badDirectory(128, 'without NUL', entryBytes('a\0b', FILE)),
  'bad-name-256': badDirectory(128, 'a name of 256 bytes', entryBytes('n'.repeat(256), FILE)),
  'bad-name-huge': badDirectory(128, 'a name of', tokens('entry', '(', 'name', lengthOf(2n ** 62n))),
  'bad-name-padding': { nar: patched(good(['a', regular('x')]).nar, 137, 1), at: 137, reason: 'padding byte 1' },
  'bad-name-twice': badDirectory(320, 'strictly ascending', entryBytes('a', FILE), entryBytes('a', FILE)),
  'bad-order': badDirectory(320, 'strictly ascending', entryBytes('b', FILE), entryBytes('a', FILE)),
  'bad-order-utf16': badDirectory(320, 'strictly ascending', entryBytes('\xf0\x9f\x98\x80', FILE), entryBytes('\xef\xbf\xbd', FILE)),
  'bad-order-prefix': badDirectory(320, 'strictly ascending', entryBytes('ab', FILE), entryBytes('a', FILE)),
  'bad-entry-no-name': badDirectory(112, "needed 'name'", tokens('entry', '(', 'node', FILE, ')')),
  'bad-entry-no-node': badDirectory(144, "needed 'node'", tokens('entry', '(', 'name', 'a', ')')),
  'bad-name-after-node': badDirectory(112, "needed 'name'", tokens('entry', '(', 'node', FILE, 'name', 'a', ')')),
  'bad-file-entries': bad(72, "found 'entry'", '(', 'type', 'regular', entryBytes('a', FILE), ')'),
  'bad-target-empty': bad(88, 'an empty symlink target', '(', 'type', 'symlink', 'target', '', ')'),
  'bad-target-nul': bad(88, 'with NUL', '(', 'type', 'symlink', 'target', 'a\0b', ')'),
  'bad-target-4096': bad(88, 'a symlink target of 4096 bytes', '(', 'type', 'symlink', 'target', 'a'.repeat(4096), ')'),
  'bad-target-missing': bad(72, "needed 'target'", '(', 'type', 'symlink', ')'),
  'bad-depth-64': { nar: narBytes(nested(64, regular('x'))), at: 24 + 64 * 136, reason: 'depth 64' },
}

const index: Record<string, unknown> = {}
for (const [name, { nar, at, reason }] of Object.entries(CASES)) {
  writeFileSync(join(import.meta.dirname, `${name}.nar`), nar)
  index[`${name}.nar`] = at === undefined ? { verdict: 'accept' } : { verdict: 'reject', at, reason }
}
writeFileSync(join(import.meta.dirname, 'cases.json'), `${JSON.stringify(index, null, 2)}\n`)
