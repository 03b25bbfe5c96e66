import { readFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import tls from 'node:tls'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { fleetKeys, NO_FLEET } from '../../src/p2p/fleet.ts'
import { hintFor, secretsOf } from '../../src/p2p/tls/keys.ts'
import { PROOF_BYTES } from '../../src/p2p/tls/proof.ts'
import { rangeOf } from '../helpers/bytes.ts'
import { expectFailure } from '../helpers/failure.ts'
import { bytesAt, count } from '../helpers/pattern-stream.ts'
import { answeringMember, connect, dial, expectGone, FLEET, listen, member, OTHER_FLEET, party, secure, socketOf, socketPair, TLS, trustIssuer } from '../helpers/tls-pair.ts'

describe('two hosts of a fleet', () => {
  it('know who the other one is, and need not negotiate a muxer', async () => {
    const [dialler, answerer] = [await party(), await party()]
    const { outbound, inbound } = await secure({ dialler, answerer, expected: peerIdFromPrivateKey(answerer.privateKey) })
    const [near, far] = await Promise.all([outbound, inbound])
    expect(near.remotePeer.toString()).toBe(peerIdFromPrivateKey(answerer.privateKey).toString())
    expect(far.remotePeer.toString()).toBe(peerIdFromPrivateKey(dialler.privateKey).toString())
    expect([near.streamMuxer?.protocol, far.streamMuxer?.protocol]).toEqual(['/yamux/1.0.0', '/yamux/1.0.0'])
  })

  it.each([
    ['the same key', FLEET, FLEET],
    ['the old one, while the other accepts both', FLEET, fleetKeys(rangeOf(1, 32), rangeOf(0, 32))],
    ['the new one, while the other accepts both', OTHER_FLEET, fleetKeys(rangeOf(0, 32), rangeOf(1, 32))],
    ['none, and are in no fleet', NO_FLEET, NO_FLEET],
  ])('meet by %s', async (_what, near, far) => {
    const { outbound, inbound } = await secure({ dialler: await party(near), answerer: await party(far) })
    await Promise.all([outbound, inbound])
  })

  it('read their keys anew for each handshake', async () => {
    const keys = { ...FLEET }
    const answerer = await party(keys)
    await (await secure({ answerer })).outbound
    Object.assign(keys, OTHER_FLEET)
    await expectFailure((await secure({ answerer })).outbound, 'peer-failed', /Cannot complete the handshake/)
    await (await secure({ answerer, dialler: await party(OTHER_FLEET) })).outbound
  })

  it('lose no byte that came before the socket was taken', async () => {
    const { near, far } = await connect()
    const [dialler, answerer] = [await party(), await party()]
    const outbound = dialler.encrypter.secureOutbound(near)
    // The whole first message of TLS lies in libp2p's buffer.
    await vi.waitFor(() => { expect(far.readBufferLength).toBeGreaterThan(200) })
    await Promise.all([outbound, answerer.encrypter.secureInbound(far)])
    expect(far.readBufferLength).toBe(0)
  })

  it('lose no byte that comes together with a proof', async () => {
    const { outbound, inbound } = await secure()
    const { connection: out } = await outbound
    for (let at = 0; at < 300_000; at += 1000) out.send(bytesAt(at, 1000))
    const { connection: inn } = await inbound
    const seen = count(inn)
    await vi.waitFor(() => { expect(seen).toEqual({ bytes: 300_000, wrong: false }) })
  })
})

describe('a stranger', () => {
  it.each([
    ['another key', OTHER_FLEET, FLEET], ['no key', NO_FLEET, FLEET], ['a key that is no longer accepted', OTHER_FLEET, fleetKeys(rangeOf(0, 32), rangeOf(2, 32))],
    ['a key, at a host without one', FLEET, NO_FLEET],
  ])('with %s is refused at both ends, and nothing is left', async (_what, dialling, answering) => {
    const { near, far, outbound, inbound } = await secure({ dialler: await party(dialling), answerer: await party(answering) })
    await expectFailure(outbound, 'peer-failed', /Cannot complete the handshake: found .*needed a peer with the same fleet key/)
    await expectFailure(inbound, 'peer-failed', /Cannot complete the handshake: found .*needed a peer with the same fleet key/)
    await expectGone(near, far)
  })

  it('is told the same alert and nothing else, whatever it says of keys', async () => {
    const answers: string[] = []
    for (const identity of [hintFor(secretsOf(FLEET.dial)), hintFor(secretsOf(OTHER_FLEET.dial)), 'nonsense', 'x'.repeat(128)]) {
      const answerer = await party()
      const address = await listen(connection => { void answerer.encrypter.secureInbound(connection).catch(() => undefined) })
      const raw = connectTcp(Number(address.getComponents()[1]?.value), '127.0.0.1')
      const seen: Buffer[] = []
      raw.on('data', bytes => { seen.push(bytes) })
      await new Promise(resolve => { raw.once('connect', resolve) })
      // A proxy between the stranger's TLS and the wire shows what the answerer said.
      const { near, far } = await socketPair()
      far.pipe(raw)
      raw.pipe(far)
      const socket = tls.connect({ ...TLS, socket: near, checkServerIdentity: () => undefined, pskCallback: () => ({ psk: Buffer.alloc(32), identity }) })
      socket.on('error', () => undefined)
      await new Promise(resolve => { socket.once('close', resolve) })
      answers.push(Buffer.concat(seen).toString('hex'))
    }
    // A record of type alert, and in it: fatal, decrypt_error.
    expect(new Set(answers)).toEqual(new Set(['15030300020233']))
  })

  it('with no pre-shared key at all is refused', async () => {
    const answerer = await party()
    const { near, far } = await connect()
    const inbound = answerer.encrypter.secureInbound(far)
    const socket = tls.connect({ ...TLS, socket: socketOf(near), rejectUnauthorized: false })
    socket.on('error', () => undefined)
    await expectFailure(inbound, 'peer-failed', /Cannot complete the handshake/)
    await expectGone(far)
  })

  // Guard: checkServerIdentity (tls/socket.ts), where the certificate's issuer is one that this system trusts; OpenSSL's own refusal comes first where it is not.
  it.each([
    ['of an unknown issuer', false, /Cannot complete the handshake/], ['of an issuer that this system trusts', true, /found a certificate, needed the fleet key/],
  ])('in the place of a host, with a certificate %s, is told nothing', async (_what, isTrusted, reason) => {
    const pem = readFileSync(new URL('../fixtures/stranger.pem', import.meta.url))
    if (isTrusted) trustIssuer(pem.toString())
    let received = 0
    const server = tls.createServer({ ...TLS, key: pem, cert: pem }, socket => {
      socket.on('error', () => undefined)
      socket.on('data', (bytes: Buffer) => { received += bytes.length })
      socket.write(Buffer.alloc(PROOF_BYTES))
    })
    await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
    onTestFinished(() => { server.close() })
    const near = await dial(multiaddr(`/ip4/127.0.0.1/tcp/${String((server.address() as { port: number }).port)}`))
    const dialler = await party()
    await expectFailure(dialler.encrypter.secureOutbound(near), 'peer-failed', reason)
    await expectGone(near)
    expect(received).toBe(0)
  })

  it('gets in by no ticket of an earlier connection', async () => {
    const answerer = await party()
    const first = await connect()
    const inbound = answerer.encrypter.secureInbound(first.far)
    inbound.catch(() => undefined)
    const socket = await member(socketOf(first.near))
    const session = await new Promise<Buffer>(resolve => { socket.once('session', resolve) })
    const again = await connect()
    const second = answerer.encrypter.secureInbound(again.far)
    const resumed = tls.connect({ ...TLS, socket: socketOf(again.near), session, rejectUnauthorized: false })
    resumed.on('error', () => undefined)
    await expectFailure(second, 'peer-failed', /Cannot complete the handshake/)
  })
})

describe('a host of the fleet that lies', () => {
  /** Shows the public key of another host and signs with its own. */
  async function impostor(): Promise<PrivateKey> {
    const [own, other] = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')]
    return Object.create(own, { publicKey: { value: other.publicKey }, sign: { value: own.sign.bind(own) } }) as PrivateKey
  }

  it('about who it is, is refused: as dialler', async () => {
    const { near, far, inbound } = await secure({ dialler: await party(FLEET, { privateKey: await impostor() }) })
    await expectFailure(inbound, 'peer-failed', /Cannot trust the dialler: found a wrong proof of its peer id/)
    await expectGone(near, far)
  })

  it('about who it is, is refused: as answerer', async () => {
    const { near, far, outbound, inbound } = await secure({ answerer: await party(FLEET, { privateKey: await impostor() }) })
    await expectFailure(outbound, 'peer-failed', /Cannot trust the answerer: found a wrong proof of its peer id/)
    await expect(inbound).rejects.toThrow()
    await expectGone(near, far)
  })

  it('in the place of the one that is meant, is refused and not told who asks', async () => {
    const meant = await party()
    const { near, far, outbound, inbound } = await secure({ expected: peerIdFromPrivateKey(meant.privateKey) })
    await expectFailure(outbound, 'peer-failed', /Cannot speak to 12D3\w+: found 12D3\w+ in its place/)
    await expect(inbound).rejects.toThrow()
    await expectGone(near, far)
  })

  it('and passes on what others prove, is refused', async () => {
    const [dialler, answerer] = [await party(), await party()]
    const [toDialler, toAnswerer] = [await connect(), await connect()]
    const inbound = answerer.encrypter.secureInbound(toAnswerer.far)
    inbound.catch(() => undefined)
    const outbound = dialler.encrypter.secureOutbound(toDialler.near)
    const near = answeringMember(socketOf(toDialler.far))
    const far = await member(socketOf(toAnswerer.near))
    near.pipe(far)
    far.pipe(near)
    await expectFailure(outbound, 'peer-failed', /Cannot trust the answerer/)
    await expect(inbound).rejects.toThrow()
  })

  it('by sending back what it was sent, is refused', async () => {
    const answerer = await party()
    const { near, far } = await connect()
    const inbound = answerer.encrypter.secureInbound(far)
    const socket = await member(socketOf(near))
    socket.on('data', (bytes: Buffer) => { socket.write(bytes) })
    await expectFailure(inbound, 'peer-failed', /Cannot trust the dialler/)
    await expectGone(far)
  })
})

describe('a handshake that does not go on', () => {
  it.each([['answerer', 'secureInbound', 'far'], ['dialler', 'secureOutbound', 'near']] as const)('because the other end is silent, is given up by the %s', async (_role, method, end) => {
    const ends = await connect()
    const { encrypter } = await party(FLEET, { timeoutMs: 50 })
    await expectFailure(encrypter[method](ends[end]), 'peer-failed', /found it unfinished after 50 ms/)
    await expectGone(ends[end])
  })

  it.each([['answerer', 'secureInbound', 'far'], ['dialler', 'secureOutbound', 'near']] as const)('because the other end is silent, ends when the caller of the %s has had enough', async (_role, method, end) => {
    const ends = await connect()
    const controller = new AbortController()
    const { encrypter } = await party()
    const secured = encrypter[method](ends[end], { signal: controller.signal })
    setImmediate(() => { controller.abort(new Error('enough')) })
    await expect(secured).rejects.toThrow('enough')
    await expectGone(ends[end])
  })

  it('because the proof does not come, is given up', async () => {
    const answerer = await party(FLEET, { timeoutMs: 300 })
    const { near, far } = await connect()
    const inbound = answerer.encrypter.secureInbound(far)
    await member(socketOf(near))
    await expect(inbound).rejects.toThrow()
    await expectGone(near, far)
  })

  it('because the proof is cut short, fails', async () => {
    const answerer = await party()
    const { near, far } = await connect()
    const inbound = answerer.encrypter.secureInbound(far)
    const socket = await member(socketOf(near))
    socket.end(Buffer.alloc(PROOF_BYTES - 1))
    await expect(inbound).rejects.toThrow()
    await expectGone(near, far)
  })

  it('because the other end has ended it with its first bytes, fails', async () => {
    const { near, far } = await connect()
    near.send(new Uint8Array(300))
    await near.close()
    await vi.waitFor(() => { expect(far.readBufferLength).toBe(300) })
    await vi.waitFor(() => { expect(far.status).toBe('closed') })
    await expectFailure((await party()).encrypter.secureInbound(far), 'peer-failed', /found the connection closed/)
    await expectGone(near, far)
  })

  it('because its first bytes are nonsense, fails', async () => {
    const { near, far } = await connect()
    near.send(rangeOf(0, 300))
    await expectFailure((await party()).encrypter.secureInbound(far), 'peer-failed', /Cannot complete the handshake/)
    await expectGone(near, far)
  })

  it('because the caller gives up, ends at both ends, at any moment', async () => {
    for (let turns = 0; turns < 12; turns++) {
      const controller = new AbortController()
      const { near, far, outbound, inbound } = await secure({ signal: controller.signal })
      for (let turn = 0; turn < turns; turn++) await new Promise(resolve => { setImmediate(resolve) })
      controller.abort(new Error('enough'))
      const [one, other] = await Promise.allSettled([outbound, inbound])
      if (one.status === 'fulfilled' && other.status === 'fulfilled') near.abort(new Error('it was done before'))
      await expectGone(near, far)
    }
  })

  it('because it never began, fails at once', async () => {
    const { near } = await connect()
    const { encrypter } = await party()
    await expect(encrypter.secureOutbound(near, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    await expectGone(near)
    await expectFailure(encrypter.secureOutbound(near), 'peer-failed', /found the connection closed/)
  })
})
