import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { NarHash } from '../../../src/image/nar-hash.ts'
import { WorkerClient, type Registration } from '../../../src/nix/worker/client.ts'
import { NixSaidNo } from '../../../src/nix/worker/said.ts'
import { encodeU64, WireReader, WireWriter } from '../../../src/nix/worker/wire.ts'

const LAST = 0x616c7473
const PATH = '/nix/store/7pd01133yha2s6wji4ab7vh7pp1905a1-greeting.txt'
const INFO: Registration = { path: PATH, narHash: NarHash.fromBytes(Buffer.alloc(32, 7)), narSize: 120, references: [PATH], deriver: null, ca: null, signatures: ['k-1:AA=='] }

/** A daemon that says what it was given, in pieces, and keeps what it is sent. */
function scripted(answers: Uint8Array, { piece = 7 }: { piece?: number } = {}) {
  const sent: Buffer[] = []
  const output = async function* (): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < answers.length; start += piece) yield await Promise.resolve(answers.subarray(start, start + piece))
  }
  return { output: output(), write: (...parts: Uint8Array[]) => Promise.resolve(void sent.push(...parts.map(part => Buffer.from(part)))), sent: () => Buffer.concat(sent) }
}

function greeting(minor: number): WireWriter {
  const writer = new WireWriter().u64(0x6478696f).u64(1 << 8 | minor)
  if (minor >= 38) writer.texts(['some-feature'])
  if (minor >= 33) writer.text('2.99.0')
  if (minor >= 35) writer.u64(1)
  return writer.u64(LAST)
}

function errorRecord(message: string): Buffer {
  return new WireWriter().u64(0x63787470).text('Error').u64(0).text('Error').text(message).u64(0).u64(1).u64(0).text('while doing it').bytes()
}

describe('the handshake', () => {
  test.each([32, 33, 34, 35, 37, 38, 39])('with protocol 1.%i', async minor => {
    const channel = scripted(Buffer.concat([greeting(minor).bytes(), new WireWriter().u64(LAST).texts([PATH]).bytes()]))
    const client = await WorkerClient.open(channel)
    expect(await client.validPaths([PATH])).toEqual(new Set([PATH]))
    expect(channel.sent().subarray(0, 16)).toEqual(new WireWriter().u64(0x6e697863).u64(0x126).bytes())
  })

  test.each([[18, 'found protocol 1.18, needed 1.32 (Nix 2.4) or newer'], [31, 'found protocol 1.31']])('1.%i is too old', async (minor, message) => {
    await expect(WorkerClient.open(scripted(greeting(minor).bytes()))).rejects.toThrow(message)
  })

  test('with something that is no Nix daemon', async () => {
    await expect(WorkerClient.open(scripted(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')))).rejects.toThrow(/found (?:the number|a number|0x)/)
  })
})

describe('an answer', () => {
  const open = async (...answers: Uint8Array[]) => {
    const channel = scripted(Buffer.concat([greeting(34).bytes(), ...answers]))
    return { client: await WorkerClient.open(channel), channel }
  }

  test('comes after whatever the daemon says meanwhile', async () => {
    const chatter = new WireWriter().u64(0x6f6c6d67).text('\u001B[35;1mwarning\u001B[0m\n')
      .u64(0x53545254).u64(1).u64(3).u64(100).text('copying').u64(2).u64(0).u64(5).u64(1).text('x').u64(0)
      .u64(0x52534c54).u64(1).u64(105).u64(1).u64(0).u64(9).u64(0x53544f50).u64(1).u64(LAST).u64(0).bytes()
    const { client } = await open(chatter)
    expect(await client.pathInfo(PATH)).toBeNull()
  })

  test('is what the store knows of a path', async () => {
    const { client } = await open(new WireWriter().u64(LAST).u64(1).text(`${PATH}.drv`).text('07'.repeat(32)).texts([PATH]).u64(1700000000).u64(120).u64(1).texts(['k-1:AA==']).text('text:sha256:x').bytes())
    expect(await client.pathInfo(PATH)).toMatchObject({ path: PATH, deriver: `${PATH}.drv`, narHash: INFO.narHash, references: [PATH], registrationTime: 1700000000, narSize: 120, ultimate: true, signatures: ['k-1:AA=='], ca: 'text:sha256:x' })
  })

  test('that is a refusal has Nix\'s words', async () => {
    const { client } = await open(errorRecord('path is not valid'))
    await expect(client.validPaths([PATH])).rejects.toThrow(new NixSaidNo('path is not valid'))
  })

  const hostile: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ['a tag that there is not', new WireWriter().u64(0x1234).bytes(), /found the tag 0x1234/],
    ['a list that is too long', new WireWriter().u64(LAST).u64(65_537).bytes(), /found a list of 65537 items/],
    ['a string that is too long', new WireWriter().u64(LAST).u64(1).u64(2 ** 40).bytes(), /found a string of 1099511627776 bytes/],
    ['a number beyond what is counted', Buffer.concat([new WireWriter().u64(LAST).bytes(), Buffer.alloc(8, 0xff)]), /found the number 18446744073709551615/],
    ['padding that is not zero', Buffer.concat([new WireWriter().u64(LAST).u64(1).u64(1).bytes(), Buffer.from('abcdefgh')]), /found padding/],
    ['nothing', Buffer.alloc(0), /found the end of what its daemon sends/],
  ]
  test.each(hostile)('that is %s fails', async (_what, bytes, message) => {
    const { client } = await open(bytes)
    await expect(client.validPaths([PATH])).rejects.toThrow(message)
  })

  test('that is cut anywhere, or is any bytes, fails and never hangs', async () => {
    const whole = new WireWriter().u64(LAST).u64(1).text('').text('07'.repeat(32)).texts([PATH]).u64(1).u64(1).u64(1).texts([]).text('').bytes()
    await fc.assert(fc.asyncProperty(fc.oneof(fc.nat({ max: whole.length - 1 }).map(cut => whole.subarray(0, cut)), fc.uint8Array({ maxLength: 64 })), async bytes => {
      const { client } = await open(bytes)
      await expect(client.pathInfo(PATH)).rejects.toThrow()
    }))
  })
})

describe('a path that is registered', () => {
  async function* nar(pieces: Uint8Array[], onStep: () => void = () => undefined): AsyncGenerator<Uint8Array> {
    for (const piece of pieces) {
      onStep()
      yield await Promise.resolve(piece)
    }
  }

  test('is sent as Nix reads it: its fields, and its NAR in frames', async () => {
    const channel = scripted(greeting(34).u64(LAST).bytes())
    const client = await WorkerClient.open(channel)
    const before = channel.sent().length
    await client.addToStore(INFO, nar([Buffer.from('abc'), Buffer.alloc(0), Buffer.from('de')]), { checkSignatures: true })
    const fields = new WireWriter().u64(39).text(PATH).text('').text('07'.repeat(32)).texts([PATH]).u64(0).u64(120).u64(0).texts(['k-1:AA==']).text('').u64(0).u64(0).bytes()
    // The scripted daemon has answered at once, so that a part of the frames is all that need be sent.
    const expected = Buffer.concat([fields, encodeU64(3), Buffer.from('abc'), encodeU64(2), Buffer.from('de'), encodeU64(0)])
    expect(expected.subarray(0, channel.sent().length - before)).toEqual(channel.sent().subarray(before))
    expect(channel.sent().length - before).toBeGreaterThanOrEqual(fields.length)
  })

  test('and is refused early is not read to its end', async () => {
    const channel = scripted(Buffer.concat([greeting(34).bytes(), errorRecord('it lacks a valid signature')]))
    const client = await WorkerClient.open(channel)
    let steps = 0
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      for (;;) {
        steps++
        yield await new Promise(resolve => { setImmediate(() => { resolve(Buffer.alloc(65536)) }) })
      }
    }
    await expect(client.addToStore(INFO, endless(), { checkSignatures: true })).rejects.toThrow('it lacks a valid signature')
    expect(steps).toBeLessThan(100)
  })
})

test('values are read as they were written', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.string({ unit: 'grapheme' }), { maxLength: 20 }), fc.nat(), fc.boolean(), fc.integer({ min: 1, max: 20 }), async (texts, number, flag, piece) => {
    const reader = new WireReader(scripted(new WireWriter().texts(texts).u64(number).bool(flag).bytes(), { piece }).output)
    expect([await reader.texts(), await reader.u64(), await reader.bool()]).toEqual([texts.map(text => Buffer.from(text).toString()), number, flag])
  }))
})
