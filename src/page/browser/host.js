/** What this page knows of the host, kept fresh while somebody looks. */

import { ask, follow, imagePath, Refusal } from './ask.js'

/** @import { BanJson, ChunkMapJson, ExplanationJson, HostEvent, ImageDetailsJson, ImageJson, PeerJson, QueueJson, StatusJson, TransferJson } from '../../control/api.ts' */

/** Milliseconds between two looks. */
const INTERVAL_MS = 1000
/** Looks between two at what changes slowly, between two at what hardly changes, and between two at everything. */
const SLOW = 5
const RARE = 15
const ALL = 30
/** Events that are kept. */
const KEPT_EVENTS = 40
/** Images that are kept with all that is known of them. */
const KEPT_IMAGES = 16
/** Transfers whose chunks are shown. */
const MAPPED = 4

/** One image, with all that is told of it. @typedef {{ details: ImageDetailsJson, explanation: ExplanationJson }} Known */

export class Host {
  /** @type {'opening' | 'live' | 'lost'} */
  connection = 'opening'
  /** What the daemon has answered instead, where it did. @type {string | undefined} */
  complaint
  /** When the last answer came. @type {number} */
  heardAt = Date.now()
  /** @type {StatusJson | undefined} */
  status
  /** @type {PeerJson[] | undefined} */
  peers
  /** @type {ReadonlyMap<string, BanJson>} */
  bans = new Map()
  /** Bytes per second that go to and come from each peer. @type {ReadonlyMap<string, { sent: number, received: number }>} */
  rates = new Map()
  /** @type {ImageJson[] | undefined} */
  images
  /** @type {TransferJson[] | undefined} */
  transfers
  /** @type {QueueJson} */
  queue = []
  /** @type {Map<string, ChunkMapJson>} */
  chunks = new Map()
  /** @type {Map<string, Known>} */
  known = new Map()
  /** Images that are asked for and not here. @type {Set<string>} */
  absent = new Set()
  /** The newest first. @type {(HostEvent & { id: number })[]} */
  happened = []

  /** Images that somebody looks at more closely. @type {Set<string>} */
  #watched = new Set()
  /** What is to be asked anew. */
  #stale = { images: true, peers: true, transfers: true }
  /** @type {Set<string>} */
  #staleKnown = new Set()
  #ticks = 0
  #events = 0
  /** Changes of an image's state that were told. */
  #changes = 0
  #peersAt = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  /** @type {AbortController | undefined} */
  #following
  #isLooking = false
  #onChange

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange
  }

  /** Begins to look; a page that nobody sees asks nothing. */
  start() {
    document.addEventListener('visibilitychange', () => { this.#turn() })
    this.#turn()
  }

  /** Has what is told of these images, and of no others, kept fresh. @param {readonly string[]} narHashes */
  watch(narHashes) {
    const wanted = new Set(narHashes)
    for (const narHash of wanted) if (!this.#watched.has(narHash)) this.#staleKnown.add(narHash)
    // Some stay for whoever comes back, also where the daemon does not answer any more.
    for (const narHash of this.known.keys()) if (!wanted.has(narHash) && this.known.size > KEPT_IMAGES) this.known.delete(narHash)
    const hasMore = [...wanted].some(narHash => !this.#watched.has(narHash))
    this.#watched = wanted
    if (hasMore && this.#timer !== undefined) this.#soon()
  }

  #turn() {
    if (document.hidden) {
      clearTimeout(this.#timer)
      this.#timer = undefined
      this.#following?.abort()
      return
    }
    this.#stale = { images: true, peers: true, transfers: true }
    for (const narHash of this.#watched) this.#staleKnown.add(narHash)
    this.#soon()
  }

  #soon() {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => { void this.#tick() }, 0)
  }

  async #tick() {
    if (this.#isLooking) return
    this.#isLooking = true
    try {
      await this.#look()
      if (this.connection === 'lost') this.#stale = { images: true, peers: true, transfers: true }
      this.connection = 'live'
      this.complaint = undefined
      this.heardAt = Date.now()
      if (this.#following === undefined) void this.#follow()
    } catch (error) {
      this.connection = 'lost'
      this.complaint = error instanceof Refusal ? error.message : undefined
      this.#following?.abort()
    }
    this.#isLooking = false
    this.#ticks += 1
    this.#onChange()
    // A hidden page goes on when it is seen again.
    this.#timer = document.hidden ? undefined : setTimeout(() => { void this.#tick() }, INTERVAL_MS)
  }

  async #look() {
    const isLost = this.connection === 'lost'
    const slowly = isLost || this.#ticks % SLOW === 0
    await Promise.all([
      (isLost || this.#ticks % RARE === 0) && this.#lookAtStatus(),
      (slowly || this.#stale.peers) && this.#lookAtPeers(),
      (slowly || this.#stale.transfers || (this.transfers?.length ?? 0) > 0) && this.#lookAtTransfers(),
      (isLost || this.#ticks % ALL === 0 || (this.#stale.images && this.#ticks % 2 === 0)) && this.#lookAtImages(),
    ])
    const moving = (this.transfers ?? []).map(({ narHash }) => narHash)
    const mapped = new Set([...moving.slice(0, MAPPED), ...moving.filter(narHash => this.#watched.has(narHash))])
    for (const narHash of this.chunks.keys()) if (!mapped.has(narHash)) this.chunks.delete(narHash)
    const due = [...this.#watched].filter(narHash => this.#staleKnown.has(narHash) || mapped.has(narHash) || this.#ticks % ALL === 0)
    await Promise.all([...[...mapped].map(narHash => this.#lookAtChunks(narHash)), ...due.map(narHash => this.#lookAtImage(narHash))])
  }

  async #lookAtStatus() {
    this.status = await /** @type {Promise<StatusJson>} */ (ask('status'))
  }

  async #lookAtPeers() {
    this.#stale.peers = false
    const [peers, bans] = await Promise.all([/** @type {Promise<PeerJson[]>} */ (ask('peers')), /** @type {Promise<BanJson[]>} */ (ask('bans'))])
    const now = performance.now()
    const seconds = (now - this.#peersAt) / 1000
    const before = new Map(this.peers?.map(peer => [peer.peerId, peer]))
    // Two looks close to each other give no rate.
    if (seconds > 0.8) {
      this.rates = new Map(peers.map(({ peerId, bytesSent, bytesReceived }) => {
        const { bytesSent: sent, bytesReceived: received } = before.get(peerId) ?? { bytesSent, bytesReceived }
        return [peerId, { sent: Math.max(0, bytesSent - sent) / seconds, received: Math.max(0, bytesReceived - received) / seconds }]
      }))
      this.#peersAt = now
      this.peers = peers
    } else if (this.peers?.length !== peers.length) this.peers = peers
    this.bans = new Map(bans.map(ban => [ban.peerId, ban]))
  }

  async #lookAtTransfers() {
    this.#stale.transfers = false
    const [transfers, queue] = await Promise.all([/** @type {Promise<TransferJson[]>} */ (ask('transfers')), /** @type {Promise<QueueJson>} */ (ask('queue'))])
    this.transfers = transfers
    this.queue = queue
    if (transfers.length > 0) this.#stale.peers = true
  }

  async #lookAtImages() {
    this.#stale.images = false
    const before = this.#changes
    const images = await /** @type {Promise<ImageJson[]>} */ (ask('images'))
    // What has changed since it was asked for would be shown as it was; the next look brings it.
    if (this.images === undefined || this.#changes === before) this.images = images
  }

  /** @param {string} narHash */
  async #lookAtChunks(narHash) {
    const map = await unlessGone(/** @type {Promise<ChunkMapJson>} */ (ask(`${imagePath(narHash)}/chunks`)))
    if (map !== undefined) this.chunks.set(narHash, map)
  }

  /** @param {string} narHash */
  async #lookAtImage(narHash) {
    this.#staleKnown.delete(narHash)
    const path = imagePath(narHash)
    const [details, explanation] = await Promise.all([
      unlessGone(/** @type {Promise<ImageDetailsJson>} */ (ask(path))),
      unlessGone(/** @type {Promise<ExplanationJson>} */ (ask(`${path}/explanation`))),
    ])
    if (details === undefined || explanation === undefined) {
      this.known.delete(narHash)
      this.absent.add(narHash)
      return
    }
    this.absent.delete(narHash)
    const isOlder = this.known.has(narHash) && this.#staleKnown.has(narHash)
    if (this.#watched.has(narHash) && !isOlder) this.known.set(narHash, { details, explanation })
  }

  async #follow() {
    const following = new AbortController()
    this.#following = following
    // A stream that ends is opened again with the next look; without one the looks alone keep the page fresh.
    await follow(event => { this.#take(event) }, following.signal).catch(() => undefined)
    if (this.#following === following) setTimeout(() => { this.#following = undefined }, SLOW * INTERVAL_MS)
  }

  /** @param {HostEvent} event */
  #take(event) {
    this.#events += 1
    this.happened = [{ ...event, id: this.#events }, ...this.happened].slice(0, KEPT_EVENTS)
    if (event.type === 'peer') this.#stale.peers = true
    if (event.type === 'work' || event.type === 'image') this.#stale.transfers = true
    if (event.type === 'lost') this.#stale = { images: true, peers: true, transfers: true }
    if (event.type === 'image') this.#change(event)
    this.#onChange()
  }

  /** Shows a change of state at once; the rest of the image comes with the next look. @param {Extract<HostEvent, { type: 'image' }>} event */
  #change({ narHash, to, reason, code }) {
    this.#stale.images = true
    this.#changes += 1
    if (this.#watched.has(narHash)) this.#staleKnown.add(narHash)
    if (to === null) {
      this.images = this.images?.filter(image => image.narHash !== narHash)
      return
    }
    const state = { state: to, reason: to === 'verified' ? null : reason, reasonCode: code }
    this.images = this.images?.map(image => image.narHash !== narHash ? image : { ...image, ...state })
    const known = this.known.get(narHash)
    if (known !== undefined) this.known.set(narHash, { ...known, details: { ...known.details, ...state } })
  }
}

/**
 * @template T
 * @param {Promise<T>} answer
 * @returns {Promise<T | undefined>} undefined where the image is gone
 */
async function unlessGone(answer) {
  try {
    return await answer
  } catch (error) {
    if (error instanceof Refusal && (error.code === 'not-found' || error.code === 'invalid-argument')) return undefined
    throw error
  }
}
