import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { NarvikError } from '../errors.ts'
import type { PageFiles } from '../page/files.ts'

/** Where the page is; what it needs is below it. */
export const PAGE_URL = '/page/'

/**
 * What the page may do: run the scripts that come with it and ask the host that it came from, and nothing else. Markup that a script makes
 * from text passes through the library alone, which takes it from the templates of the page.
 */
const POLICY = [
  'default-src \'none\'', 'script-src \'self\'', 'style-src \'self\'', 'img-src \'self\'', 'connect-src \'self\'',
  'base-uri \'none\'', 'form-action \'none\'', 'frame-ancestors \'none\'', 'require-trusted-types-for \'script\'', 'trusted-types lit-html',
].join('; ')

const HEADERS = {
  'content-security-policy': POLICY,
  'cross-origin-opener-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  // Asked again each time, and answered with the ETag's 304: a daemon that is upgraded has another page.
  'cache-control': 'no-cache',
}

/** Answers with the page's files; everything that `app` answers can be read by the page itself only, and is what it says that it is. */
export function showPage(app: FastifyInstance, files: PageFiles): void {
  app.addHook('onRequest', (_request, reply, done) => {
    void reply.headers({ 'x-content-type-options': 'nosniff', 'cross-origin-resource-policy': 'same-origin' })
    done()
  })
  app.get(PAGE_URL.slice(0, -1), (_request, reply) => reply.redirect(PAGE_URL))
  app.get<{ Params: { '*': string } }>(`${PAGE_URL}*`, (request, reply) => answer(files, request.params['*'], request, reply))
}

async function answer(files: PageFiles, name: string, { headers }: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const file = await files.get(name)
  if (file === undefined) throw new NarvikError('not-found', `Cannot show a page: found nothing of this name below ${PAGE_URL}, needed a file of the page`)
  void reply.headers({ ...HEADERS, etag: file.etag })
  if (headers['if-none-match']?.includes(file.etag) === true) return reply.status(304).send()
  return reply.type(file.type).send(file.body)
}
