/** One direction of a host's link. What flows through it is told one level, and none of them gets more than that. */
export class Port {
  /** Bytes per millisecond, of those that are counted. */
  readonly speed: number
  /** What a flow gets that nothing else holds back. */
  level: number
  /** Whether all of it is used. */
  isFull = false
  readonly flows: Flow[] = []
  /** Bytes that went through it in messages too small to be flows, since they were last taken off its speed. */
  small = 0
  isChanged = false
  /** The speed without what the small messages take, and the level that the other ends of the flows were told. */
  free: number
  told: number

  constructor(speed: number) {
    this.speed = speed
    this.free = speed
    this.level = speed
    this.told = speed
  }
}

/** Bytes on their way from one host to another, as a fluid. */
export class Flow {
  readonly up: Port
  readonly down: Port
  /** Bytes that have not left. */
  left = 0
  /** Called when they have; may set `left` anew, or stop the flow. */
  readonly onSent: () => void
  isRunning = false
  /** Where it stands among those that run. */
  index = 0

  constructor(up: Port, down: Port, onSent: () => void) {
    this.up = up
    this.down = down
    this.onSent = onSent
  }

  /** Bytes per millisecond. */
  get rate(): number {
    return Math.min(this.up.level, this.down.level)
  }
}

/** A level that changes by less is no news to others. */
const NEWS = 0.01
/** How far a change of one port spreads within a step; the rest does in the next ones. */
const ROUNDS = 4
/** Milliseconds over which the share of the small messages is taken. */
const SMALL_MS = 250

/**
 * Shares the links out among the flows, as fair as can be: a flow gets what the narrower of its ends gives to each of those that are not held back
 * elsewhere. Only ports at which something has changed are reckoned again, and those to which it matters.
 */
export class Network {
  readonly #running: Flow[] = []
  readonly #ports: Port[] = []
  #changed: Port[] = []
  #smallTakenAt = 0
  #room = new Float64Array(64)

  port(speed: number): Port {
    const port = new Port(speed)
    this.#ports.push(port)
    return port
  }

  start(flow: Flow): void {
    if (flow.isRunning) return
    flow.isRunning = true
    flow.index = this.#running.push(flow) - 1
    for (const port of [flow.up, flow.down]) {
      port.flows.push(flow)
      this.#change(port)
    }
  }

  stop(flow: Flow): void {
    if (!flow.isRunning) return
    flow.isRunning = false
    const last = this.#running.pop()
    if (last !== undefined && last !== flow) {
      this.#running[flow.index] = last
      last.index = flow.index
    }
    for (const port of [flow.up, flow.down]) {
      const at = port.flows.indexOf(flow)
      const other = port.flows.pop()
      if (other !== undefined && other !== flow) port.flows[at] = other
      this.#change(port)
    }
  }

  /** Lets everything flow for a step that ends `now`. */
  advance(now: number, stepMs: number): void {
    if (now - this.#smallTakenAt >= SMALL_MS) this.#takeSmall(now)
    for (let round = 0; round < ROUNDS && this.#changed.length > 0; round++) this.#share()
    // From the last to the first: one that stops is replaced by one that has flowed already.
    for (let index = this.#running.length - 1; index >= 0; index--) {
      const flow = this.#running[index]
      if (flow === undefined) continue
      flow.left -= flow.rate * stepMs
      while (flow.isRunning && flow.left <= 0) flow.onSent()
    }
  }

  #takeSmall(now: number): void {
    const elapsed = now - this.#smallTakenAt
    this.#smallTakenAt = now
    for (const port of this.#ports) {
      const free = Math.max(port.speed - port.small / elapsed, port.speed / 10)
      port.small = 0
      if (Math.abs(free - port.free) < NEWS * port.speed) continue
      port.free = free
      this.#change(port)
    }
  }

  #change(port: Port): void {
    if (port.isChanged) return
    port.isChanged = true
    this.#changed.push(port)
  }

  #share(): void {
    const changed = this.#changed
    this.#changed = []
    for (const port of changed) {
      port.isChanged = false
      port.level = this.#levelOf(port)
      if (Math.abs(port.level - port.told) <= NEWS * port.told) continue
      const least = Math.min(port.level, port.told)
      port.told = port.level
      for (const { up, down } of port.flows) {
        const other = up === port ? down : up
        if (other.level > least) this.#change(other)
      }
    }
  }

  /** What each flow may have that its other end does not hold back to less. */
  #levelOf(port: Port): number {
    const { flows, free } = port
    if (flows.length > this.#room.length) this.#room = new Float64Array(2 * flows.length)
    const asked = this.#room
    for (const [index, { up, down }] of flows.entries()) {
      const level = up === port ? down.level : up.level
      let at = index
      for (; at > 0 && (asked[at - 1] ?? 0) > level; at--) asked[at] = asked[at - 1] ?? 0
      asked[at] = level
    }
    let left = free
    for (let index = 0; index < flows.length; index++) {
      const share = left / (flows.length - index)
      if ((asked[index] ?? 0) >= share) {
        port.isFull = true
        return share
      }
      left -= asked[index] ?? 0
    }
    port.isFull = false
    return Math.min(free, (flows.length === 0 ? 0 : asked[flows.length - 1] ?? 0) + left)
  }
}
