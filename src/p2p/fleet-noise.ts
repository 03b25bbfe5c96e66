import { noise } from '@chainsafe/libp2p-noise'
import type { ConnectionEncrypter, MessageStream, SecureConnectionOptions, SecuredConnection } from '@libp2p/interface'
import { byteStream } from '@libp2p/utils'
import { NarvikError } from '../errors.ts'
import { type FleetKeys, handshakePrologue, keyOfKnock, knockFor, KNOCK_BYTES } from './fleet.ts'
import { noiseCrypto } from './noise-crypto.ts'

type Components = Parameters<ReturnType<typeof noise>>[0]
type Noise = ReturnType<ReturnType<typeof noise>>

/** Another name than plain Noise has: the first message is another one. It is the same for every fleet and every key. */
export const FLEET_NOISE_PROTOCOL = '/narvik/noise/1.0.0'
/** Bytes of Noise's first message in XX, with its length: the dialler's ephemeral key. */
const FIRST_MESSAGE_BYTES = 2 + 32

/** Plain Noise; for hosts that are in no fleet. */
export function openNoise(): (components: Components) => ConnectionEncrypter {
  return noise({ crypto: noiseCrypto })
}

/**
 * Noise XX for the hosts of a fleet. The dialler puts a knock before its first message: a MAC of that message under the fleet key. The other
 * end tries each key that it accepts and answers only if one fits, so that a stranger learns nothing, not even the peer id that Noise's second
 * message would show to whoever asks; a knock that was overheard is of no use without the secret half of the ephemeral key that it covers.
 * The prologue of the key that fits then binds the whole handshake to it, which is what shows the dialler that the other end has the key.
 */
export function fleetNoise(keys: FleetKeys): (components: Components) => ConnectionEncrypter {
  return components => new FleetNoise(components, keys)
}

class FleetNoise implements ConnectionEncrypter {
  readonly protocol = FLEET_NOISE_PROTOCOL
  readonly #components: Components
  readonly #keys: FleetKeys
  readonly #byKey = new Map<string, Noise>()

  constructor(components: Components, keys: FleetKeys) {
    this.#components = components
    this.#keys = keys
  }

  async secureOutbound(connection: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    const { dial } = this.#keys
    if (dial === undefined) throw new NarvikError('internal', 'Cannot dial into the fleet: found no fleet key, needed one')
    knockFirst(connection, dial)
    return this.#noiseOf(dial).secureOutbound(connection, options)
  }

  async secureInbound(connection: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    const key = await this.#answerKnock(connection, options)
    return this.#noiseOf(key).secureInbound(connection, options)
  }

  /** The key that the dialler has shown to have; its first message is put back for Noise. */
  async #answerKnock(connection: MessageStream, options: SecureConnectionOptions | undefined): Promise<Uint8Array> {
    const bytes = byteStream(connection, { maxBufferSize: 64 * 1024 })
    const received = await bytes.read({ bytes: KNOCK_BYTES + FIRST_MESSAGE_BYTES, ...(options?.signal !== undefined && { signal: options.signal }) })
    const knock = received.subarray(0, KNOCK_BYTES)
    const message = received.subarray(KNOCK_BYTES)
    const key = keyOfKnock(this.#keys.accept, knock, message)
    // Nothing was answered until here. Were this not refused, there would be no prologue to answer with either.
    if (key === undefined) throw new NarvikError('refused', 'Cannot let a peer in: found a knock by none of the fleet keys, needed one of this fleet')
    bytes.unwrap()
    connection.unshift(message)
    return key
  }

  #noiseOf(key: Uint8Array): Noise {
    const id = Buffer.from(handshakePrologue(key)).toString('hex')
    let made = this.#byKey.get(id)
    if (made === undefined) {
      made = noise({ crypto: noiseCrypto, prologueBytes: handshakePrologue(key) })(this.#components)
      this.#byKey.set(id, made)
    }
    return made
  }
}

/** Puts the knock before the first message that is sent, in the same write: no more round trips than without it. */
function knockFirst(connection: MessageStream, key: Uint8Array): void {
  const send = connection.send.bind(connection)
  connection.send = first => {
    connection.send = send
    const message = first.subarray()
    if (message.byteLength !== FIRST_MESSAGE_BYTES) throw new NarvikError('internal', `Cannot knock: found a first message of ${message.byteLength} bytes, needed ${FIRST_MESSAGE_BYTES}`)
    return connection.send(Buffer.concat([knockFor(key, message), message]))
  }
}
