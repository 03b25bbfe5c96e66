import { describe, expect, test } from 'vitest'
import { ERROR_CODES } from '../../../src/errors.ts'
import { classifyMessage, NIX_FAILURES, NixError, whatNixSaid } from '../../../src/nix/nix-error.ts'
import { quote, show } from '../../../src/nix/quote.ts'
import { Slots } from '../../../src/nix/slots.ts'
import { locateStore, mayWrite, storeExists } from '../../../src/nix/store-location.ts'
import { hasJsonFormat, isSupported, parseNixVersion } from '../../../src/nix/version.ts'

describe('the version', () => {
  test.each([
    ['nix (Nix) 2.8.0\n', 'nix', '2.8.0', true, false],
    ['nix (Nix) 2.3.16', 'nix', '2.3.16', false, false],
    ['nix (Nix) 2.4pre20210802_47e96bb', 'nix', '2.4pre20210802_47e96bb', true, false],
    ['nix (Nix) 2.32.4', 'nix', '2.32.4', true, false],
    ['nix (Nix) 2.33.0', 'nix', '2.33.0', true, true],
    ['nix (Nix) 3.0', 'nix', '3.0', true, true],
    ['nix (Lix, like Nix) 2.96.0-dev\nSystem type: x86_64-linux\n', 'lix', '2.96.0-dev', true, false],
    ['nix (Determinate Nix 3.8.0) 2.35.2', 'determinate', '2.35.2', true, true],
    ['nix (Tvix) 2.9.1', 'unknown', '2.9.1', true, false],
    ['nix 2.5.1', 'nix', '2.5.1', true, false],
    ['\x1b[1mnix (Nix) 2.8.0\x1b[0m', 'nix', '2.8.0', true, false],
  ])('%j', (text, flavour, version, supported, jsonFormat) => {
    const found = parseNixVersion(text)
    expect(found).toMatchObject({ flavour, version })
    expect(found && [isSupported(found), hasJsonFormat(found)]).toEqual([supported, jsonFormat])
  })

  test.each(['', 'nix', 'nix (Nix)', 'nix (Nix) two', 'bash: nix: command not found', 'nix (Nix) 2', `nix (Nix) 2.8${'.'.repeat(1000)}`])('%j is none', text => {
    expect(parseNixVersion(text)).toBeUndefined()
  })
})

describe('what Nix says', () => {
  test.each([
    ["error: experimental Nix feature 'nix-command' is disabled; use '--extra-experimental-features nix-command' to override", 'feature-disabled'],
    ["error: experimental feature 'nix-command' is disabled", 'feature-disabled'],
    ["error: unrecognised flag '--json-format'", 'too-old'],
    ["error: 'add-path' is not a recognised command", 'too-old'],
    ["error: creating directory '/nix/store': Permission denied", 'permission'],
    ["error: opening lock file '/nix/var/nix/db/big-lock': Read-only file system", 'permission'],
    ['error: you are not privileged to add signatures', 'permission'],
    ["error: cannot add path '/nix/store/x' because it lacks a valid signature", 'permission'],
    ["error: path '/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar' is not valid", 'not-valid'],
    ['error: unexpected end-of-file', 'failed'],
    ['', 'failed'],
  ])('%j is of the kind %s', (message, kind) => {
    expect(classifyMessage(message)).toBe(kind)
  })

  test('is shown in one line, from the first error on, without colours', () => {
    expect(whatNixSaid("warning: old\n\x1b[31;1merror:\x1b[0m path '\x1b[35;1m/x\x1b[0m'\n       is\todd\r\n\x07")).toBe("error: path '/x' is odd ?")
    expect(whatNixSaid('warning: only this\n')).toBe('warning: only this')
    expect(whatNixSaid(' \n')).toBe('nothing')
  })

  test('is shown up to a length, and of what is too long the end', () => {
    const said = whatNixSaid(`error: ${'x'.repeat(100_000)} the reason`)
    expect(said.length).toBeLessThan(1000)
    expect(said).toMatch(/the reason$/)
    expect(quote('"\n'.repeat(1000)).length).toBeLessThan(1000)
    expect(show({ x: 'y'.repeat(10_000) }).length).toBeLessThan(1000)
    expect([show(undefined), show(null), show([1])]).toEqual(['nothing', 'null', '[1]'])
  })

  test('has a code and often a hint', () => {
    for (const kind of NIX_FAILURES) expect(ERROR_CODES).toHaveProperty(new NixError(kind, 'Cannot').code)
    expect(new NixError('missing', 'Cannot').hint).toMatch(/nix\.bin_dir/)
    expect(new NixError('missing', 'Cannot', { hint: 'Wait' }).hint).toBe('Wait')
  })
})

describe('where the store is', () => {
  test.each([
    [undefined, {}, '/nix/store', '/nix/store'],
    [undefined, { NIX_STORE_DIR: '/srv/store' }, '/srv/store', '/srv/store'],
    [undefined, { NIX_STORE_DIR: 'nonsense' }, '/nix/store', '/nix/store'],
    ['/srv/x', {}, '/nix/store', '/srv/x/nix/store'],
    [undefined, { NIX_REMOTE: '/srv/x' }, '/nix/store', '/srv/x/nix/store'],
    ['daemon', {}, '/nix/store', '/nix/store'],
    ['ssh-ng://elsewhere', {}, '/nix/store', null],
  ])('%j %j', (store, env, storeDir, directory) => {
    expect(locateStore(store, env)).toMatchObject({ storeDir, directory })
  })

  test('a store that only Nix can reach may be there', async () => {
    const location = locateStore('ssh-ng://elsewhere', {})
    expect([await storeExists(location), await mayWrite(location, undefined)]).toEqual([true, true])
    expect(await storeExists(locateStore(undefined, { NIX_STORE_DIR: import.meta.filename }))).toBe(false)
  })
})

describe('slots', () => {
  test('are never more than there are, and are given in order', async () => {
    const slots = new Slots(2)
    const gates = Array.from({ length: 5 }, () => Promise.withResolvers<number>())
    const started: number[] = []
    const works = gates.map(({ promise }, index) => slots.run(async () => {
      started.push(index)
      return await promise
    }))
    await turn()
    expect(started).toEqual([0, 1])
    gates[1]?.resolve(1)
    await works[1]
    await turn()
    expect(started).toEqual([0, 1, 2])
    gates.forEach(({ resolve }, index) => { resolve(index) })
    expect(await Promise.all(works)).toEqual([0, 1, 2, 3, 4])
    expect(started).toEqual([0, 1, 2, 3, 4])
  })

  test('are given back by what fails, and left alone by what was aborted', async () => {
    const slots = new Slots(1)
    const gate = Promise.withResolvers<undefined>()
    const aborted = new AbortController()
    const first = slots.run(() => gate.promise)
    const second = slots.run(() => Promise.resolve('never'), aborted.signal)
    const third = slots.run(() => Promise.resolve('third'))
    aborted.abort(new Error('enough'))
    await expect(second).rejects.toThrow('enough')
    gate.reject(new Error('failed'))
    await expect(first).rejects.toThrow('failed')
    expect(await third).toBe('third')
    expect(await slots.run(() => Promise.resolve('fourth'))).toBe('fourth')
    await expect(slots.run(() => Promise.resolve('never'), aborted.signal)).rejects.toThrow('enough')
  })

  test('handed to one that was aborted in the same turn are handed on', async () => {
    const slots = new Slots(1)
    const gate = Promise.withResolvers<undefined>()
    const aborted = new AbortController()
    const first = slots.run(() => gate.promise.finally(() => { queueMicrotask(() => { aborted.abort(new Error('enough')) }) }))
    const second = slots.run(() => Promise.resolve('second'), aborted.signal).catch(() => 'aborted')
    gate.resolve(undefined)
    await first
    await second
    expect(await slots.run(() => Promise.resolve('third'))).toBe('third')
  })
})

/** Lets everything that is ready run. */
function turn(): Promise<void> {
  return new Promise(resolve => { setImmediate(resolve) })
}
