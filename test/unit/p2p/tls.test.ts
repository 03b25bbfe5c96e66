import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fleetKeys, NO_FLEET } from '../../../src/p2p/fleet.ts'
import { hintFor, secretsOf, secretsOfHint } from '../../../src/p2p/tls/keys.ts'
import { bindingOf, checkProof, prove, PROOF_BYTES, type ProofSubject } from '../../../src/p2p/tls/proof.ts'
import { rangeOf } from '../../helpers/bytes.ts'
import { expectFailure } from '../../helpers/failure.ts'

const KEY = rangeOf(0, 32)
const OTHER = rangeOf(1, 32)

describe('a proof of a peer id', async () => {
  const privateKey = await generateKeyPair('Ed25519')
  const self = peerIdFromPrivateKey(privateKey)
  const to = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
  const exported = rangeOf(7, 32)
  const subject: ProofSubject = { role: 'dialler', binding: bindingOf(secretsOf(KEY), exported), to }
  const proof = await prove(privateKey, subject)

  it('says who proves', async () => {
    expect(proof.byteLength).toBe(PROOF_BYTES)
    expect((await checkProof(proof, subject)).toString()).toBe(self.toString())
  })

  const others: [string, ProofSubject][] = [
    ['another role', { ...subject, role: 'answerer' }],
    ['another channel', { ...subject, binding: bindingOf(secretsOf(KEY), rangeOf(8, 32)) }],
    ['another fleet', { ...subject, binding: bindingOf(secretsOf(OTHER), exported) }],
    ['no fleet', { ...subject, binding: bindingOf(secretsOf(undefined), exported) }],
    ['another addressee', { ...subject, to: self }],
    ['no addressee', { ...subject, to: undefined }],
  ]
  it.each(others)('is none in %s', async (_what, other) => {
    await expectFailure(checkProof(proof, other), 'peer-failed', /found a wrong proof of its peer id/)
  })

  it('is none with any byte changed, or of another length', async () => {
    await fc.assert(fc.asyncProperty(fc.nat(PROOF_BYTES - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
      const changed = Buffer.from(proof)
      changed.writeUInt8(changed.readUInt8(at) ^ change, at)
      await expect(checkProof(changed, subject)).rejects.toThrow()
    }), { numRuns: 50 })
    await expectFailure(checkProof(Buffer.concat([proof, Buffer.alloc(1)]), subject), 'peer-failed', /wrong proof/)
    await expect(checkProof(new Uint8Array(PROOF_BYTES), subject)).rejects.toThrow()
  })
})

describe('the secrets of a fleet key', () => {
  it('are of that key alone, differ from each other, and show nothing of it', () => {
    const hex = (key: Uint8Array | undefined): string[] => Object.values(secretsOf(key)).map((secret: Buffer) => secret.toString('hex'))
    expect(hex(KEY)).toEqual(hex(KEY.slice()))
    expect(new Set([...hex(KEY), ...hex(OTHER), ...hex(undefined), Buffer.from(KEY).toString('hex')]).size).toBe(10)
  })

  it('are found by a hint, which is another one each time', () => {
    const keys = fleetKeys(OTHER, KEY)
    for (const key of [KEY, OTHER]) {
      const hints = [hintFor(secretsOf(key)), hintFor(secretsOf(key))]
      expect(hints[0]).not.toBe(hints[1])
      for (const hint of hints) expect(secretsOfHint(keys, hint)?.psk).toEqual(secretsOf(key).psk)
    }
    expect(secretsOfHint(NO_FLEET, hintFor(secretsOf(undefined)))?.psk).toEqual(secretsOf(undefined).psk)
  })

  it('are not found by the hint of another key, nor by nonsense', () => {
    expect(secretsOfHint(fleetKeys(KEY), hintFor(secretsOf(OTHER)))).toBeUndefined()
    expect(secretsOfHint(fleetKeys(KEY), hintFor(secretsOf(undefined)))).toBeUndefined()
    expect(secretsOfHint(NO_FLEET, hintFor(secretsOf(KEY)))).toBeUndefined()
    fc.assert(fc.property(fc.string({ maxLength: 128 }), text => { expect(secretsOfHint(fleetKeys(KEY), text)).toBeUndefined() }))
  })
})
