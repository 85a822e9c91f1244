/**
 * A stream that is opened on a tunnel of somebody else: between the workers of a node over a Unix
 * socket, between nodes over TLS. docs/protocol.md section 12.
 */
import { isCode, kindNumber, kinds } from '#mux'
import type { StreamKind } from '#mux'
import { DatagramStream } from './datagrams.ts'
import { joinStreams } from './join.ts'
import { TunnelClosed, TunnelRefused } from './tunnel.ts'
import type { Offer, Tunnel, TunnelStream } from './tunnel.ts'

/** What the OPEN of a relay stream asks for. */
export interface Relayed {
  /** Names the tunnel, 1 to 255 octets of UTF-8; what names mean is the application's. */
  readonly route: string
  /** Any kind but `relay`: one hop, so that there are no circles. */
  readonly kind: StreamKind
  /** What the stream's own OPEN says; 4,096 octets less two and those of the route. */
  readonly metadata: Uint8Array
}

/** The metadata of a relay stream's OPEN. Longer than 4 KiB it is `call.range` when it is opened. */
export function writeRelayed({ route, kind, metadata }: Relayed): Uint8Array {
  const name = new TextEncoder().encode(route)
  if (name.length < 1 || name.length > 255 || kind === 'relay')
    throw new RangeError('a route of 1 to 255 octets and a kind that is no relay are expected')
  return Buffer.concat([Buffer.of(kindNumber(kind), name.length), name, metadata])
}

/** Reads it; undefined for what is not one. */
export function readRelayed(bytes: Uint8Array): Relayed | undefined {
  const [number = 0, length = 0] = bytes
  const kind = kinds[number - 1]
  if (kind === undefined || kind === 'relay' || length === 0 || bytes.length < 2 + length)
    return undefined
  try {
    const route = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      bytes.subarray(2, 2 + length),
    )
    return { route, kind, metadata: bytes.subarray(2 + length) }
  } catch {
    return undefined
  }
}

/**
 * Opens a stream on the tunnel that `asked.route` names at the other end of `tunnel`: the answer, the
 * refusal, the end are those of that tunnel. Rejects as `Tunnel.open`; also with TunnelRefused
 * `relay.route` (no such tunnel there) and `relay.metadata`.
 */
export async function openRelay(
  tunnel: Tunnel,
  asked: Relayed,
  options: { readonly signal?: AbortSignal } = {},
): Promise<TunnelStream> {
  const stream = await tunnel.open('relay', writeRelayed(asked), options)
  return asked.kind === 'udp' ? new DatagramStream(stream, asked.metadata) : stream
}

/**
 * Answers the offer of a relay stream by opening what it asks for on the tunnel that `find` gives, and
 * joins the two. Never rejects; whether the peer may ask this at all is decided before.
 */
export async function answerRelay(
  offer: Offer,
  find: (route: string) => Tunnel | undefined,
): Promise<void> {
  const asked = offer.kind === 'relay' ? readRelayed(offer.metadata) : undefined
  if (asked === undefined) {
    offer.refuse('relay.metadata', 'the question of a relay stream cannot be read')
    return
  }
  const tunnel = find(asked.route)
  if (tunnel === undefined) {
    offer.refuse('relay.route', 'there is no such tunnel here')
    return
  }
  const gone = new AbortController()
  offer.onCancel = () => gone.abort()
  let inner: TunnelStream
  try {
    inner = await tunnel.open(asked.kind, asked.metadata, { signal: gone.signal })
  } catch (error) {
    const { code, message } = reasonOf(error)
    offer.refuse(code, message)
    return
  }
  const outer = offer.accept(inner.answer)
  joinStreams(asked.kind === 'udp' ? new DatagramStream(outer, asked.metadata) : outer, inner)
}

/** Why the inner stream did not come to be, in the words of whoever said so. */
function reasonOf(error: unknown): { readonly code: string; readonly message: string } {
  const told = error instanceof TunnelRefused || error instanceof TunnelClosed
  if (!told || !isCode(error.code)) return { code: 'relay.failed', message: String(error) }
  return { code: error.code, message: error.message === error.code ? '' : error.message }
}
