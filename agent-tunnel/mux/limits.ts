/** What one end of a tunnel will bear; sent in part in HELLO. docs/protocol.md section 8. */

/** Milliseconds of a clock that never goes back; not a date. */
export type Monotonic = number & { readonly clock: 'monotonic' }

/** What a peer says of itself in HELLO. A `client` is a vendor's program. */
export type Role = 'agent' | 'client' | 'gateway'

/** Who made the connection: the dialler's stream ids are odd, the acceptor's even. */
export type Side = 'dialler' | 'acceptor'

/** What a stream carries; `udp` keeps datagram boundaries, the others are byte streams. */
export type StreamKind = 'tcp' | 'udp' | 'spawn' | 'relay' | 'control'

/** The four limits that HELLO carries: what the peer must respect when it sends to us. */
export interface WireLimits {
  /** Streams the peer may have open at once, 1 to 1,048,576. */
  readonly maxStreams: number
  /** Credit in bytes that each new stream starts with, 16 KiB to `maxWindow`. */
  readonly initialWindow: number
  /** Largest DATA payload in bytes, 16 KiB to 2^24-1. */
  readonly maxFrame: number
  /** Most credit in bytes a stream will ever have outstanding, up to 2^31-1. */
  readonly maxWindow: number
}

/** Every limit of one end, with times in milliseconds, sizes in bytes, rates per second. */
export interface Limits extends WireLimits {
  readonly helloTimeoutMs: number
  /** Growth of receive windows above `initialWindow`, summed over the tunnel. */
  readonly receiveBudget: number
  /** Received and not consumed, over the tunnel; above it the stream that holds most is reset. */
  readonly receiveMemory: number
  /** Largest slab of outgoing frames. */
  readonly maxSlab: number
  /** PONG and REFUSE that this end owes and the peer does not read. */
  readonly maxBacklog: number
  /** Datagrams of one udp stream that wait for the wire, or for the application. */
  readonly datagramBudget: number
  readonly opensPerSecond: number
  /** Streams that die young: beyond this many a second, each costs delay, then the tunnel. */
  readonly resetsPerSecond: number
  readonly pingsPerSecond: number
  readonly signalsPerSecond: number
  /** Frames that carry no payload of the application and are not counted elsewhere. */
  readonly emptyFramesPerSecond: number
  /** DATA and DATAGRAM of fewer than 32 octets, over the tunnel. */
  readonly tinyFramesPerSecond: number
  /** Octets per second in frames of types 0x80 and above, which are skipped. */
  readonly extensionBytesPerSecond: number
  /** A PING after this much silence, drawn anew from the range each time. */
  readonly keepaliveMs: readonly [least: number, most: number]
  /** What that may grow to: the dialler's while idle ones are answered, the acceptor's as its dialler's does. */
  readonly keepalivePatienceMs: number
}

const KiB = 1024
const MiB = 1024 * KiB

export const defaultLimits: Limits = {
  maxStreams: 4096,
  initialWindow: 256 * KiB,
  maxFrame: 256 * KiB,
  maxWindow: 16 * MiB,
  helloTimeoutMs: 5000,
  receiveBudget: 64 * MiB,
  receiveMemory: 256 * MiB,
  maxSlab: 512 * KiB,
  maxBacklog: 4 * MiB,
  datagramBudget: 256 * KiB,
  opensPerSecond: 20_000,
  resetsPerSecond: 200,
  pingsPerSecond: 20,
  signalsPerSecond: 2000,
  emptyFramesPerSecond: 100_000,
  tinyFramesPerSecond: 100_000,
  extensionBytesPerSecond: 64 * KiB,
  keepaliveMs: [15_000, 25_000],
  keepalivePatienceMs: 25_000,
}
