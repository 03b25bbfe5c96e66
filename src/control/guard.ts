import { isIPv4 } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { NarvikError } from '../errors.ts'

type Asked = Pick<FastifyRequest, 'headers' | 'method' | 'url'>

/** For a port that is there for browsers alone: everything that comes in is judged as theirs. */
export function guardPage(request: Asked): void {
  refuseForeignHost(request)
  refuseForeignOrigin(request)
  if (request.method === 'GET') return
  throw new NarvikError('refused', `Cannot answer ${request.method} for a browser: found a request that changes something, needed one that reads`, {
    hint: 'Use `narvik`, or the control socket with a client that is no browser',
  })
}

/** For the control socket, which a browser reaches where somebody forwards a port to it. Programs send none of what tells a browser. */
export function guardSocket(request: Asked): void {
  const { origin, 'sec-fetch-site': site, 'sec-ch-ua': brands, 'user-agent': agent } = request.headers
  if (origin !== undefined || site !== undefined || brands !== undefined || agent?.startsWith('Mozilla/') === true) guardPage(request)
}

/** A page of the web has a name of its own; it may have been pointed to loopback (DNS rebinding). */
function refuseForeignHost({ headers: { host = '' }, method }: Asked): void {
  if (isLoopbackHost(host)) return
  throw new NarvikError('refused', `Cannot answer ${method} for the host ${short(host)}: found a name that is not loopback's, needed localhost, 127.0.0.1 or [::1]`, {
    hint: 'From another machine, forward a port: ssh -L 4652:127.0.0.1:4652 HOST, then open http://localhost:4652/',
  })
}

/** A link from elsewhere may lead to the page, and to nothing else. */
function refuseForeignOrigin({ headers, method, url }: Asked): void {
  const { origin, host = '', 'sec-fetch-site': site } = headers
  // What an older browser says, which tells no site.
  if (site === undefined && origin !== undefined && origin !== `http://${host}`) {
    throw new NarvikError('refused', `Cannot answer ${method} ${short(url)}: found a request of ${short(origin)}, needed one of Narvik's own page`)
  }
  if (site === undefined || site === 'same-origin' || site === 'none') return
  if (headers['sec-fetch-dest'] === 'document' && !url.startsWith('/v1/')) return
  throw new NarvikError('refused', `Cannot answer ${method} ${short(url)}: found a request of another origin (${site}), needed one of Narvik's own page`)
}

/** Whether a `Host` header names loopback; the port may be that of a tunnel. */
export function isLoopbackHost(host: string): boolean {
  const name = host.replace(/:\d{1,5}$/, '').toLowerCase()
  return name === 'localhost' || name === '[::1]' || (isIPv4(name) && name.startsWith('127.'))
}

function short(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}
