import { malformed, type WireReader } from './wire.ts'

/** What Nix says instead of an answer, in its own words: they may have colours and several lines. */
export class NixSaidNo extends Error {
  override readonly name = 'NixSaidNo'
}

/**
 * Reads what the daemon says while it works, up to the answer: the messages are dropped.
 * @throws NixSaidNo where it says why it will not do what it was asked.
 */
export async function untilAnswer(reader: WireReader): Promise<void> {
  for (;;) {
    const tag = await reader.u64()
    if (tag === TAGS.last) return
    if (tag === TAGS.error) throw new NixSaidNo(await readError(reader))
    const skip = SKIPPED.get(tag)
    if (skip === undefined) throw malformed(`the tag 0x${tag.toString(16)}`, 'one of the protocol')
    await skip(reader)
  }
}

/** libstore/include/nix/store/worker-protocol.hh; the letters of each are in its bytes. */
const TAGS = { next: 0x6f6c6d67, last: 0x616c7473, error: 0x63787470, start: 0x53545254, stop: 0x53544f50, result: 0x52534c54 } as const

const SKIPPED = new Map<number, (reader: WireReader) => Promise<void>>([
  [TAGS.next, async reader => { await reader.text() }],
  [TAGS.start, async reader => {
    for (let field = 0; field < 3; field++) await reader.u64()
    await reader.text()
    await skipFields(reader)
    await reader.u64()
  }],
  [TAGS.stop, async reader => { await reader.u64() }],
  [TAGS.result, async reader => {
    await reader.u64()
    await reader.u64()
    await skipFields(reader)
  }],
])

async function skipFields(reader: WireReader): Promise<void> {
  await reader.list(async () => {
    const type = await reader.u64()
    if (type === 0) await reader.u64()
    else if (type === 1) await reader.text()
    else throw malformed(`a field of type ${type}`, '0 or 1')
  })
}

/** As since protocol 1.26: type, level, name, message, position, and the way there, which nobody is shown. */
async function readError(reader: WireReader): Promise<string> {
  await reader.text()
  await reader.u64()
  await reader.text()
  const message = await reader.text()
  await reader.u64()
  await reader.list(async () => {
    await reader.u64()
    await reader.text()
  })
  return message
}
