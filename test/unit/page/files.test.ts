import { readdirSync } from 'node:fs'
import { posix } from 'node:path'
import { describe, expect, test } from 'vitest'
import { PageFiles } from '../../../src/page/files.ts'
import { importsOf } from '../../helpers/imports.ts'

const BROWSER = new URL('../../../src/page/browser/', import.meta.url)

describe('the files of the page', () => {
  const files = new PageFiles()

  test('are all there, each with its type and an ETag of its content', async () => {
    for (const name of readdirSync(BROWSER).filter(name => !name.endsWith('.json'))) {
      const file = await files.get(name === 'index.html' ? '' : name)
      expect(file?.type, name).toMatch(/^(text\/(html|css|javascript); charset=utf-8|image\/svg\+xml)$/)
      expect(file?.etag).toMatch(/^"[\w-]{43}"$/)
    }
    expect((await files.get('main.js'))?.etag).not.toBe((await files.get('host.js'))?.etag)
  })

  test('import nothing that is not one of them', async () => {
    const seen = new Set<string>()
    const open = ['main.js']
    for (let name = open.pop(); name !== undefined; name = open.pop()) {
      if (seen.has(name)) continue
      seen.add(name)
      const file = await files.get(name)
      expect(file, name).toBeDefined()
      for (const { specifier } of importsOf(name, file?.body.toString() ?? '')) {
        expect(specifier, name).toMatch(/^\.{1,2}\//)
        open.push(posix.join(posix.dirname(name), specifier ?? ''))
      }
    }
    expect(seen).toContain('lib/lit-html.js')
    expect(seen.size).toBe(readdirSync(BROWSER).filter(name => name.endsWith('.js')).length + 4)
  })

  test('are few bytes: a page that is looked at takes no memory to speak of', async () => {
    let bytes = 0
    for (const name of ['', ...readdirSync(BROWSER), 'lib/lit-html.js']) bytes += (await files.get(name))?.body.length ?? 0
    expect(bytes).toBeLessThan(128 * 1024)
  })

  test.each(['../files.ts', '..%2ffiles.ts', '/etc/passwd', 'tsconfig.json', 'index.html', 'lib/package.json', '__proto__', 'constructor'])('%s is none', async name => {
    expect(await files.get(name)).toBeUndefined()
  })
})
