import type { Server } from 'node:http'
import { fromSystemError, messageOf } from '../errors.ts'
import { CONTROL_REQUEST_TIMEOUT_MS } from '../limits.ts'
import type { Logger } from '../log.ts'
import { EXPOSITION_TYPE } from './registry.ts'

// An import of it loads all that it exports, a WebSocket client of 0.8 MB of source included.
const { createServer } = process.getBuiltinModule('node:http')

export interface MetricsServerInit {
  readonly host: string
  /** 0 for a free one. */
  readonly port: number
}

/** Answers `GET /metrics` on a TCP port, for a Prometheus that can't open the control socket; nothing else is told there. */
export class MetricsServer {
  readonly #server: Server
  readonly #init: MetricsServerInit

  /** `isOurs`: whether a `Host` header names this host. Where others are named, a page of the web has had its own name pointed here (DNS rebinding). */
  constructor({ text, logger, isOurs }: { readonly text: () => Promise<string>, readonly logger: Logger, readonly isOurs: (host: string) => boolean }, init: MetricsServerInit) {
    this.#init = init
    this.#server = createServer({ requestTimeout: CONTROL_REQUEST_TIMEOUT_MS, headersTimeout: CONTROL_REQUEST_TIMEOUT_MS }, (request, response) => {
      request.resume()
      if (!isOurs(request.headers.host ?? '')) {
        response.writeHead(403, { 'content-type': 'text/plain' }).end('Only localhost, 127.0.0.1 and [::1] are answered on this address: set metrics.host to another one of this host for others to read.\n')
        return
      }
      if (request.url !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
        response.writeHead(404, { 'content-type': 'text/plain' }).end('Only GET /metrics is answered here.\n')
        return
      }
      text().then(body => { response.writeHead(200, { 'content-type': EXPOSITION_TYPE }).end(body) }, (error: unknown) => {
        logger.error('cannot tell the metrics', { error })
        response.writeHead(500, { 'content-type': 'text/plain' }).end(`${messageOf(error)}\n`)
      })
    })
    this.#server.maxConnections = 16
  }

  /** Resolves with the port. */
  start(): Promise<number> {
    const { host, port } = this.#init
    return new Promise((resolve, reject) => {
      this.#server.once('error', error => { reject(fromSystemError(error, `listen for metrics on ${host} port ${port}`)) })
      this.#server.listen(port, host, () => {
        const address = this.#server.address()
        resolve(typeof address === 'object' && address !== null ? address.port : port)
      })
    })
  }

  stop(): Promise<void> {
    return new Promise(resolve => {
      this.#server.close(() => { resolve() })
      this.#server.closeAllConnections()
    })
  }
}
