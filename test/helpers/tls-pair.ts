import { connect as connectTcp, createServer, Socket } from 'node:net'
import tls from 'node:tls'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { ConnectionEncrypter, MultiaddrConnection, PrivateKey, SecureConnectionOptions, SecuredConnection, StreamMuxerFactory } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { expect, onTestFinished, vi } from 'vitest'
import { silentLogger } from '../../src/log.ts'
import { fleetKeys, type FleetKeys } from '../../src/p2p/fleet.ts'
import { libp2pLogger } from '../../src/p2p/libp2p-log.ts'
import { muxer } from '../../src/p2p/stack.ts'
import { fleetTls, type TlsInit } from '../../src/p2p/tls/encrypter.ts'
import { hintFor, secretsOf, secretsOfHint } from '../../src/p2p/tls/keys.ts'
import { rangeOf } from './bytes.ts'

export const FLEET = fleetKeys(rangeOf(0, 32))
export const OTHER_FLEET = fleetKeys(rangeOf(1, 32))

/** What a scripted end of TLS needs. */
export const TLS = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const

/** The two ends of a real connection as libp2p's transport makes them; each is aborted when the test is over. */
export interface Ends {
  readonly near: MultiaddrConnection
  readonly far: MultiaddrConnection
}

const transport = tcp()({ logger: libp2pLogger(silentLogger) })

/** Listens on loopback and gives every connection to `onInbound`. */
export async function listen(onInbound: (connection: MultiaddrConnection) => void): Promise<Multiaddr> {
  const listener = transport.createListener({ upgrader: { upgradeInbound: (connection: MultiaddrConnection) => { onInbound(connection); return Promise.resolve() } } as never })
  await listener.listen(multiaddr('/ip4/127.0.0.1/tcp/0'))
  onTestFinished(() => listener.close())
  return listener.getAddrs()[0] ?? multiaddr()
}

export async function dial(address: Multiaddr): Promise<MultiaddrConnection> {
  const upgrader = { upgradeOutbound: (connection: MultiaddrConnection) => Promise.resolve(connection) }
  return await transport.dial(address, { upgrader, signal: AbortSignal.timeout(10_000) } as never) as unknown as MultiaddrConnection
}

export async function connect(): Promise<Ends> {
  const { promise, resolve } = Promise.withResolvers<MultiaddrConnection>()
  const near = await dial(await listen(resolve))
  const far = await promise
  onTestFinished(() => {
    near.abort(new Error('the test is over'))
    far.abort(new Error('the test is over'))
  })
  return { near, far }
}

/** The socket of a connection. */
export function socketOf(connection: MultiaddrConnection): Socket {
  const { socket } = connection as unknown as { socket: unknown }
  if (socket instanceof Socket) return socket
  throw new Error('no socket')
}

/** What one host is made of. */
export interface Party {
  readonly privateKey: PrivateKey
  readonly encrypter: ConnectionEncrypter
}

export async function party(keys: FleetKeys = FLEET, init: TlsInit & { privateKey?: PrivateKey } = {}): Promise<Party> {
  const privateKey = init.privateKey ?? await generateKeyPair('Ed25519')
  const muxers = new Map<string, StreamMuxerFactory>([['/yamux/1.0.0', muxer()]])
  return { privateKey, encrypter: fleetTls(keys, init)({ privateKey, upgrader: { getStreamMuxers: () => muxers } }) }
}

export interface Securing { readonly dialler?: Party, readonly answerer?: Party, readonly expected?: SecureConnectionOptions['remotePeer'], readonly signal?: AbortSignal }

/** Both ends' handshakes, on a connection of their own. */
export async function secure({ dialler, answerer, expected, signal }: Securing = {}): Promise<Ends & { outbound: Promise<SecuredConnection>, inbound: Promise<SecuredConnection> }> {
  const ends = await connect()
  const [one, other] = [dialler ?? await party(), answerer ?? await party()]
  const inbound = other.encrypter.secureInbound(ends.far, signal === undefined ? {} : { signal })
  const outbound = one.encrypter.secureOutbound(ends.near, { ...(expected !== undefined && { remotePeer: expected }), ...(signal !== undefined && { signal }) })
  inbound.catch(() => undefined)
  outbound.catch(() => undefined)
  return { ...ends, outbound, inbound }
}

/** That nothing is left of the connections. */
export async function expectGone(...connections: MultiaddrConnection[]): Promise<void> {
  await vi.waitFor(() => {
    for (const connection of connections) {
      expect(socketOf(connection).destroyed).toBe(true)
      expect(connection.timeline.close).toBeDefined()
    }
  }, { timeout: 10_000 })
}

/** What a host that holds the fleet key, and nothing else of this protocol, is before it proves who it is. */
export async function member(raw: Socket, keys = FLEET): Promise<tls.TLSSocket> {
  const secrets = secretsOf(keys.dial)
  const socket = tls.connect({ ...TLS, socket: raw, checkServerIdentity: () => undefined, pskCallback: () => ({ psk: secrets.psk, identity: hintFor(secrets) }) })
  socket.on('error', () => undefined)
  onTestFinished(() => { socket.destroy() })
  await new Promise((resolve, reject) => { socket.once('secureConnect', resolve).once('close', reject) })
  return socket
}

/** The same in the place of an answerer. */
export function answeringMember(raw: Socket): tls.TLSSocket {
  const options = { ...TLS, isServer: true, pskCallback: (_socket: unknown, hint: string) => secretsOfHint(FLEET, hint)?.psk ?? null }
  const socket = new tls.TLSSocket(raw, options)
  socket.on('error', () => undefined)
  onTestFinished(() => { socket.destroy() })
  return socket
}

/** The two ends of a plain TCP connection. */
export async function socketPair(): Promise<{ near: Socket, far: Socket }> {
  const { promise, resolve } = Promise.withResolvers<Socket>()
  const server = createServer(resolve)
  await new Promise<void>(done => { server.listen(0, '127.0.0.1', done) })
  const near = connectTcp((server.address() as { port: number }).port, '127.0.0.1')
  const far = await promise
  server.close()
  far.on('error', () => undefined)
  return { near, far }
}


/** Has this process, until the test is over, trust whoever has a certificate of the issuer, as a system trusts its authorities. */
export function trustIssuer(pem: string): void {
  const before = tls.getCACertificates('default')
  tls.setDefaultCACertificates([pem])
  onTestFinished(() => { tls.setDefaultCACertificates(before) })
}
