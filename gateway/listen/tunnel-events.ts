/** What becomes of tunnels as the node's log and the audit log have it: up, down, refused. */
import { muxCodes } from '#mux'
import type { CloseReason } from '#tunnel'
import type { DecisionRef } from '../decisions.ts'
import type { Presence } from '../devices/presence.ts'
import type { TunnelListener } from './listener.ts'

/** Said of whoever it is: the signature of our CA has not held, so nothing presented is anybody's. */
const STRANGERS: ReadonlySet<string> = new Set([
  'peer.none',
  'peer.malformed',
  'peer.issuer',
  'peer.signature',
])

/** Ends that are nobody's doing: the network's. */
const LOST: ReadonlySet<string> = new Set(['peer.lost', 'peer.silent', 'carrier.failed'])

/** A peer that broke the protocol is told to the operator, whoever it is. */
export function misbehaved(listener: TunnelListener, why: CloseReason, from: string): void {
  if (why.fault !== 'remote' || !Object.hasOwn(muxCodes, why.code) || LOST.has(why.code)) return
  refusedStranger(listener, why.code, from, why.message)
}

/** For the node's own log, held back where it repeats: how many were, or undefined where this one is. */
export function refusedStranger(
  listener: TunnelListener,
  code: string,
  from: string,
  detail: string,
): number | undefined {
  const suppressed = listener.quiet.tell(`${code} ${from}`, performance.now())
  if (suppressed !== undefined) listener.refused(code, from, detail, suppressed)
  return suppressed
}

export async function recordUp(
  listener: TunnelListener,
  { device, tls, peer, agent, epoch }: Presence,
  { from, clockOffsetMs }: { readonly from: string; readonly clockOffsetMs: number },
): Promise<void> {
  await listener.log.append({
    code: 'tunnel.up',
    message: `tunnel of ${device} up`,
    status: 'success',
    disposition: 'allowed',
    device,
    src: from === '' ? undefined : { ip: from },
    data: {
      tunnel: `${listener.gateway}/${epoch}`,
      tls_version: tls.version,
      cipher: tls.cipher,
      group: tls.group ?? 'unknown',
      serial: peer.serial,
      agent_version: agent.version,
      clock_offset_ms: Math.round(clockOffsetMs),
      epoch,
    },
  })
}

interface Turned {
  readonly code: string
  readonly message: string
  /** What the certificate names; null where it names nothing. */
  readonly device: string | null
  readonly decision?: DecisionRef
}

/**
 * Records a refusal. A device that proved who it is has an event for each; strangers, who can knock
 * as often as they like, have one per reason, source and minute, with the number of the others.
 */
export async function recordRefusal(
  listener: TunnelListener,
  from: string,
  { code, message, device, decision }: Turned,
): Promise<void> {
  const unknown = STRANGERS.has(code)
  const suppressed = unknown ? refusedStranger(listener, code, from, message) : 0
  if (suppressed === undefined) return
  if (!unknown) listener.refused(code, from, message, 0)
  const claim = unknown && device !== null ? `, claiming to be ${device}` : ''
  await listener.log.append({
    code: 'tunnel.down',
    message: `tunnel refused: ${code}${claim}`,
    status: 'failure',
    disposition: 'blocked',
    reason: code,
    device: unknown || device === null ? 'unknown' : device,
    src: from === '' ? undefined : { ip: from },
    decisions: decision === undefined ? undefined : [decision],
    data: { tunnel: 'refused', suppressed: unknown ? suppressed : undefined },
  })
}

export async function recordDown(
  listener: TunnelListener,
  presence: Presence,
  reason: string,
): Promise<void> {
  const withdrawn = presence.withdrawnAt()
  const took = withdrawn === undefined ? undefined : Math.ceil(performance.now() - withdrawn)
  await listener.log
    .append({
      code: 'tunnel.down',
      message: `tunnel of ${presence.device} down: ${reason}`,
      status: 'success',
      reason,
      ...(took === undefined ? {} : { disposition: 'revoked' as const }),
      device: presence.device,
      data: {
        tunnel: `${listener.gateway}/${presence.epoch}`,
        serial: presence.peer.serial,
        time_to_cut_ms: took,
        duration_ms: Math.max(0, Math.round(listener.now() - presence.since)),
      },
    })
    .catch((error: unknown) =>
      listener.report(error, `the end of the tunnel of ${presence.device} could not be recorded`),
    )
}
