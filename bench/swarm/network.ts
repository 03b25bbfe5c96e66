import { Namespace } from './namespace.ts'

/** One end of a link: a device that is made in a namespace, with an address, or put into the switch that is there. */
interface End {
  readonly namespace: Namespace
  readonly device: string
  /** With its prefix length. */
  readonly address?: string
}

export interface Speed {
  /** 10^6 bits per second, each way. */
  readonly mbit: number
  /** TCP's congestion control of the hosts at it, by the kernel's name for it. */
  readonly congestion?: string
}

/** A host's place in the network. */
export interface Station {
  readonly namespace: Namespace
  /** IPv4, of each of its devices. */
  readonly addresses: readonly string[]
}

/** A host's place behind one link, of which it is the left end. */
export interface Stub extends Station {
  readonly link: Link
}

/** Bytes on the wire, with every header of every packet up to that of Ethernet; and without them. */
export interface Traffic {
  readonly sent: number
  readonly received: number
  readonly sentPayload: number
  readonly receivedPayload: number
}

/**
 * The congestion control that Linux has unless it is told otherwise. A machine's own may be BBR, which sets a timer for what each connection
 * sends next: on a host of its own that is nothing, but here all hosts share the processors.
 */
export const CONGESTION = 'cubic'
const SWITCH = 'switch'
/** Bytes that may leave at once: as much as a host gives to its card in one piece. */
const BURST = '32kb'
/** Milliseconds for which a link's queue holds bytes; what would wait longer is dropped, as a switch with a modest queue does. */
export const QUEUE_MS = 50
/** Bytes before those that a packet carries: Ethernet, IPv4, and TCP with its timestamps. */
const HEADER_BYTES = 14 + 20 + 32

/** A cable of which both ends send at a rate: a host's up and down, apart from each other. */
export class Link {
  readonly #left: End
  readonly #right: End

  private constructor(left: End, right: End) {
    this.#left = left
    this.#right = right
  }

  static async lay(left: End, right: End, speed: Speed): Promise<Link> {
    await left.namespace.run('ip', 'link', 'add', left.device, 'type', 'veth', 'peer', 'name', right.device, 'netns', String(right.namespace.pid))
    await Promise.all([bringUp(left, speed), bringUp(right, speed)])
    return new Link(left, right)
  }

  /** What has gone over it so far, from the left end's point of view. What was dropped before it left is not in it. */
  async traffic(): Promise<Traffic> {
    const [left, right] = await Promise.all([sentBy(this.#left), sentBy(this.#right)])
    return { sent: left.bytes, received: right.bytes, sentPayload: left.bytes - left.packets * HEADER_BYTES, receivedPayload: right.bytes - right.packets * HEADER_BYTES }
  }
}

/** Hosts on one switch, each behind a link of its own. */
export class Star implements AsyncDisposable {
  readonly stations: readonly Stub[]
  readonly #namespaces: readonly Namespace[]

  private constructor(stations: readonly Stub[], namespaces: readonly Namespace[]) {
    this.stations = stations
    this.#namespaces = namespaces
  }

  static async build(count: number, speed: Speed): Promise<Star> {
    const middle = await Namespace.create()
    const namespaces = [middle]
    await middle.run('ip', 'link', 'add', SWITCH, 'type', 'bridge')
    await middle.run('ip', 'link', 'set', SWITCH, 'up')
    const stations: Stub[] = []
    for (let number = 1; number <= count; number++) {
      const namespace = await Namespace.create()
      namespaces.push(namespace)
      const address = `10.77.0.${number}`
      const link = await Link.lay({ namespace, device: 'eth0', address: `${address}/24` }, { namespace: middle, device: `port${number}` }, speed)
      stations.push({ namespace, addresses: [address], link })
    }
    return new Star(stations, namespaces)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#namespaces.map(namespace => namespace[Symbol.asyncDispose]()))
  }
}

/** Hosts in a row, each with a link to the next and a route no further. */
export class Row implements AsyncDisposable {
  readonly stations: readonly Station[]
  /** Each from one host, its left end, to the next. */
  readonly links: readonly Link[]

  private constructor(stations: readonly Station[], links: readonly Link[]) {
    this.stations = stations
    this.links = links
  }

  static async build(count: number, speed: Speed): Promise<Row> {
    const namespaces: Namespace[] = []
    for (let number = 0; number < count; number++) namespaces.push(await Namespace.create())
    const stations = namespaces.map((namespace): { namespace: Namespace, addresses: string[] } => ({ namespace, addresses: [] }))
    const links: Link[] = []
    for (const [number, left] of stations.entries()) {
      const right = stations[number + 1]
      if (right === undefined) break
      const [leftAddress, rightAddress] = [`10.77.${number}.1`, `10.77.${number}.2`]
      left.addresses.push(leftAddress)
      right.addresses.push(rightAddress)
      links.push(await Link.lay(
        { namespace: left.namespace, device: 'right', address: `${leftAddress}/24` },
        { namespace: right.namespace, device: 'left', address: `${rightAddress}/24` }, speed))
    }
    return new Row(stations, links)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.stations.map(({ namespace }) => namespace[Symbol.asyncDispose]()))
  }
}

async function bringUp({ namespace, device, address }: End, { mbit, congestion = CONGESTION }: Speed): Promise<void> {
  if (address === undefined) await namespace.run('ip', 'link', 'set', device, 'master', SWITCH)
  else await namespace.run('ip', 'address', 'add', address, 'dev', device, 'noprefixroute')
  await namespace.run('tc', 'qdisc', 'add', 'dev', device, 'root', 'tbf', 'rate', `${mbit}mbit`, 'burst', BURST, 'latency', `${QUEUE_MS}ms`)
  await namespace.run('ip', 'link', 'set', device, 'up')
  // A namespace may take another congestion control than the machine only with a route.
  if (address !== undefined) await namespace.run('ip', 'route', 'add', networkOf(address), 'dev', device, 'congctl', congestion)
}

/** The network of 256 addresses that an address with its prefix length is of. */
function networkOf(address: string): string {
  return address.replace(/\.\d+\/24$/, '.0/24')
}

/** The shaper counts each packet as it leaves; the device would count the headers of a whole burst of packets once. */
async function sentBy({ namespace, device }: End): Promise<{ bytes: number, packets: number }> {
  const text = await namespace.run('tc', '-s', 'qdisc', 'show', 'dev', device)
  const [, bytes, packets] = /Sent (\d+) bytes (\d+) pkt/.exec(text) ?? []
  if (bytes === undefined) throw new Error(`Cannot read the traffic of ${device}: found "${text}", needed "Sent … bytes … pkt"`)
  return { bytes: Number(bytes), packets: Number(packets) }
}
