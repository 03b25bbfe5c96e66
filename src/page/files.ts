import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { findPackageJSON } from 'node:module'
import { dirname, extname, join } from 'node:path'

/** One file of the page, as it is answered. */
export interface PageFile {
  readonly type: string
  readonly etag: string
  readonly body: Buffer
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const BROWSER = new URL('browser/', import.meta.url).pathname
/** What the browser needs of lit-html, below the package's directory: the builds for browsers, which import each other by relative names. */
const LIBRARY = ['lit-html.js', 'directive.js', 'directive-helpers.js', 'directives/repeat.js']
/** Where the library is, below the page. */
const LIBRARY_URL = 'lib/'

/**
 * The files of the page. All are read when the first is asked for, and stay in memory, about 80 KiB; nobody who asks
 * reaches the file system, whatever the name.
 */
export class PageFiles {
  #files: Promise<ReadonlyMap<string, PageFile>> | undefined

  /** The file with this name below the page; the page itself has the empty one. Undefined where there is none. */
  async get(name: string): Promise<PageFile | undefined> {
    this.#files ??= readAll().catch((error: unknown) => {
      this.#files = undefined
      throw error
    })
    return (await this.#files).get(name)
  }
}

async function readAll(): Promise<ReadonlyMap<string, PageFile>> {
  const files = new Map<string, PageFile>()
  for (const name of await readdir(BROWSER)) {
    if (TYPES[extname(name)] === undefined) continue
    files.set(name === 'index.html' ? '' : name, fileOf(name, await readFile(join(BROWSER, name), 'utf8')))
  }
  const library = dirname(findPackageJSON('lit-html', import.meta.url) ?? '')
  for (const name of LIBRARY) files.set(LIBRARY_URL + name, fileOf(name, await readFile(join(library, name), 'utf8')))
  return files
}

function fileOf(name: string, text: string): PageFile {
  const body = Buffer.from(extname(name) === '.js' ? withPlaces(text) : text)
  return { type: TYPES[extname(name)] ?? '', etag: `"${createHash('sha256').update(body).digest('base64url')}"`, body }
}

/** Puts places for the names of packages: a browser knows none without an import map, which would be a script within the page. */
function withPlaces(text: string): string {
  return text
    .replace(/(\bfrom\s*)'lit-html'/g, `$1'./${LIBRARY_URL}lit-html.js'`)
    .replace(/(\bfrom\s*)'lit-html\//g, `$1'./${LIBRARY_URL}`)
    .replace(/\n?\/\/# sourceMappingURL=.*$/m, '')
}
