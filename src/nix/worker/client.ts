import { NarHash } from '../../image/nar-hash.ts'
import { compareBytes } from '../store-path.ts'
import type { NixPathInfo } from '../../image/path-info.ts'
import { untilAnswer } from './said.ts'
import { encodeU64, malformed, WireReader, WireWriter } from './wire.ts'

/** Both directions of a connection to a store's daemon. */
export interface WorkerChannel {
  readonly output: AsyncIterable<Uint8Array>
  /** Resolves when there is room for more; rejects where nobody reads any more. */
  write(...parts: Uint8Array[]): Promise<void>
}

/** A path as it is registered: Nix itself puts down when, and whether it was built here. */
export type Registration = Readonly<Omit<NixPathInfo, 'registrationTime' | 'ultimate' | 'references' | 'signatures'>> & {
  readonly references: readonly string[]
  readonly signatures: readonly string[]
}

const CLIENT_MAGIC = 0x6e697863
const SERVER_MAGIC = 0x6478696f
/** 1.38, the newest; without a single feature of it. */
const CLIENT_VERSION = version(1, 38)
/** 1.32 of Nix 2.4. Older ones take a NAR in other ways. */
const OLDEST_VERSION = version(1, 32)
const OPS = { addTempRoot: 11, addIndirectRoot: 12, queryPathInfo: 26, queryValidPaths: 31, addSignatures: 37, addToStoreNar: 39 } as const

/**
 * One connection of Nix's worker protocol, as far as registering paths needs it; one request at a time. After any
 * failure, Nix's `NixSaidNo` included, the connection is in an unknown state and must be closed.
 */
export class WorkerClient {
  readonly #channel: WorkerChannel
  readonly #reader: WireReader

  private constructor(channel: WorkerChannel, reader: WireReader) {
    this.#channel = channel
    this.#reader = reader
  }

  /** Shakes hands, and agrees on a version. */
  static async open(channel: WorkerChannel): Promise<WorkerClient> {
    const reader = new WireReader(channel.output)
    await channel.write(new WireWriter().u64(CLIENT_MAGIC).bytes())
    const magic = await reader.u64()
    if (magic !== SERVER_MAGIC) throw malformed(`the number 0x${magic.toString(16)} first`, 'that of a Nix daemon')
    const server = await reader.u64()
    const agreed = Math.min(server, CLIENT_VERSION)
    if (agreed < OLDEST_VERSION) throw malformed(`protocol ${show(server)}`, `${show(OLDEST_VERSION)} (Nix 2.4) or newer`)
    const hello = new WireWriter().u64(CLIENT_VERSION)
    if (agreed >= version(1, 38)) hello.texts([])
    // Neither a processor to run on nor reserved space.
    await channel.write(hello.u64(0).u64(0).bytes())
    if (agreed >= version(1, 38)) await reader.texts()
    if (agreed >= version(1, 33)) await reader.text()
    if (agreed >= version(1, 35)) await reader.u64()
    await untilAnswer(reader)
    return new WorkerClient(channel, reader)
  }

  /** Those of the paths that are valid in the store; nothing is looked for elsewhere. */
  async validPaths(paths: readonly string[]): Promise<Set<string>> {
    await this.#ask(new WireWriter().u64(OPS.queryValidPaths).texts(paths).bool(false))
    return new Set(await this.#reader.texts())
  }

  /** What the store knows of a path; null where it is not valid. */
  async pathInfo(path: string): Promise<NixPathInfo | null> {
    await this.#ask(new WireWriter().u64(OPS.queryPathInfo).text(path))
    return await this.#reader.bool() ? await this.#readInfo(path) : null
  }

  /** Keeps a path from the garbage collector for as long as the connection lives. */
  async addTempRoot(path: string): Promise<void> {
    await this.#ask(new WireWriter().u64(OPS.addTempRoot).text(path))
    await this.#reader.u64()
  }

  /** Keeps what a link leads to from the garbage collector for as long as the link is there. */
  async addIndirectRoot(link: string): Promise<void> {
    await this.#ask(new WireWriter().u64(OPS.addIndirectRoot).text(link))
    await this.#reader.u64()
  }

  async addSignatures(path: string, signatures: readonly string[]): Promise<void> {
    await this.#ask(new WireWriter().u64(OPS.addSignatures).text(path).texts(signatures))
    await this.#reader.u64()
  }

  /**
   * Registers a path with the NAR that it is made of. Nix checks size, hash, content address and that the references are
   * valid, and, where `checkSignatures` asks for it, that a trusted key signed or the content address proves the path.
   */
  async addToStore(info: Registration, nar: AsyncIterable<Uint8Array>, { checkSignatures }: { checkSignatures: boolean }): Promise<void> {
    await this.#channel.write(describe(info, checkSignatures))
    // A refusal may come while the NAR is still being sent.
    const answered = new AbortController()
    const answer = untilAnswer(this.#reader).finally(() => { answered.abort() })
    answer.catch(() => undefined)
    for await (const bytes of nar) {
      if (answered.signal.aborted) break
      if (bytes.byteLength > 0) await Promise.race([this.#channel.write(encodeU64(bytes.byteLength), bytes), answer])
    }
    if (!answered.signal.aborted) await Promise.race([this.#channel.write(encodeU64(0)), answer])
    await answer
  }

  async #ask(request: WireWriter): Promise<void> {
    await this.#channel.write(request.bytes())
    await untilAnswer(this.#reader)
  }

  async #readInfo(path: string): Promise<NixPathInfo> {
    const reader = this.#reader
    const deriver = await reader.text()
    const narHash = await reader.text()
    if (!/^[0-9a-f]{64}$/.test(narHash)) throw malformed('a NAR hash of another form', '64 lower case hex characters')
    const references = await reader.texts()
    const registrationTime = await reader.u64()
    const narSize = await reader.u64()
    const ultimate = await reader.bool()
    const signatures = await reader.texts()
    const ca = await reader.text()
    return {
      path, narHash: NarHash.fromBytes(Buffer.from(narHash, 'hex')), narSize, references: references.sort(compareBytes),
      deriver: deriver === '' ? null : deriver, ca: ca === '' ? null : ca, signatures, registrationTime, ultimate,
    }
  }
}

function describe({ path, narHash, narSize, references, deriver, ca, signatures }: Registration, checkSignatures: boolean): Buffer {
  return new WireWriter().u64(OPS.addToStoreNar)
    .text(path).text(deriver ?? '').text(Buffer.from(narHash.bytes).toString('hex')).texts(references)
    // The time 0 stands for now; it was not built here.
    .u64(0).u64(narSize).bool(false)
    .texts(signatures).text(ca ?? '')
    .bool(false).bool(!checkSignatures).bytes()
}

function version(major: number, minor: number): number {
  return major << 8 | minor
}

function show(number: number): string {
  return `${number >> 8}.${number & 0xff}`
}
