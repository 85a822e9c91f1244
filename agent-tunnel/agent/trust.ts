/**
 * Is this the gateway? Its certificate must lead, link by verified link, to the pinned root by CAs
 * that may sign for a server, serve under the name that was dialled, and not have ended. A start in
 * the future is forgiven, under the pinned root: a device without a battery-backed clock begins in the
 * past. OpenSSL looks as well, but it reads the system's clock and reports its last error alone, which
 * a wrong date always is: where it says a date, it has said nothing else. So all that it would refuse
 * is refused here first (#est `pathTo`), and what only it can judge, such as name constraints, counts
 * against a chain that it did not pass.
 */
import type { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { isLimitedFurther, pathTo } from '#est'
import { AgentError } from './errors.ts'

/** What the agent trusts: one root, by its pin, and the issuing certificates it has seen under it. */
export interface Anchors {
  readonly root: X509Certificate
  readonly authorities: readonly X509Certificate[]
}

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const MAX_LINKS = 5

/** What is wrong with a chain first. */
interface Fault {
  readonly kind: 'untrusted' | 'wrong_name' | 'expired'
  readonly says: string
}

/**
 * Checks a server's chain. `presented`: as it came, leaf first; `host`: the name or address dialled;
 * `now`: epoch ms; `passed`: whether OpenSSL found no fault either. Undefined when all is well, else
 * the first fault.
 */
function faultOf(
  presented: readonly X509Certificate[],
  anchors: Anchors,
  { host, now, passed }: { readonly host: string; readonly now: number; readonly passed: boolean },
): Fault | undefined {
  const [leaf, ...rest] = presented
  if (leaf === undefined) return { kind: 'untrusted', says: 'the gateway presented no certificate' }
  const candidates = [...rest, ...anchors.authorities]
  const path = pathTo(leaf, candidates, anchors.root, { purpose: 'serverAuth', now })
  if (path === undefined) {
    const issuer = leaf.issuer.replaceAll('\n', ', ')
    const says = `it was issued by "${issuer}", not under the pinned root by CAs that may sign for a server`
    return { kind: 'untrusted', says }
  }
  if (leaf.ca || leaf.keyUsage?.includes(SERVER_AUTH) !== true) {
    return { kind: 'untrusted', says: 'it is under the pinned root, but not a server certificate' }
  }
  const named = isIP(host) > 0 ? leaf.checkIP(host) : leaf.checkHost(host, { subject: 'never' })
  if (named === undefined) {
    return {
      kind: 'wrong_name',
      says: `it is for ${leaf.subjectAltName ?? 'no name'}, not for ${host}`,
    }
  }
  for (const link of path) {
    const ended = link.validToDate.getTime()
    if (now > ended)
      return { kind: 'expired', says: `it ended at ${link.validToDate.toISOString()}` }
  }
  if (!passed && path.some(isLimitedFurther)) {
    const says =
      'its chain has limits, such as name constraints, that cannot be judged while the clock of this device is wrong'
    return { kind: 'untrusted', says }
  }
  return undefined
}

/** The certificates a TLS peer sent, leaf first. */
function presentedBy(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = []
  let next = socket.getPeerX509Certificate()
  while (next !== undefined && chain.length < MAX_LINKS) {
    chain.push(next)
    const issuer = next.issuerCertificate
    next = issuer === undefined || issuer.raw.equals(next.raw) ? undefined : issuer
  }
  return chain
}

/**
 * Lets a finished handshake (made with `rejectUnauthorized: false` and `ca` the root) count at `now`, or throws
 * AgentError `gateway.untrusted`, `gateway.wrong_name` or `gateway.expired`; `system` is what the device's own
 * clock says, for the words alone. Both in epoch ms.
 */
export function assertGateway(
  socket: TLSSocket,
  anchors: Anchors,
  host: string,
  now: number,
  system = now,
): void {
  const fault = faultOf(presentedBy(socket), anchors, { host, now, passed: socket.authorized })
  if (fault !== undefined) throw errorFor(fault, host, { now, system })
  if (socket.authorized) return
  const verdict = String(socket.authorizationError)
  // By the system's clock, not ours, and perhaps in place of another error: faultOf has looked for those.
  if (verdict === 'CERT_NOT_YET_VALID' || verdict === 'CERT_HAS_EXPIRED') return
  throw errorFor({ kind: 'untrusted', says: `OpenSSL says ${verdict}` }, host, { now, system })
}

/** What the device believes, and what its own clock says, epoch ms. */
interface Belief {
  readonly now: number
  readonly system: number
}

/** So far apart a clock and what was learned since are two stories. */
const APART_MS = 3_600_000

function expiredError(message: string, { now, system }: Belief): AgentError {
  const date = (at: number) => new Date(at).toISOString()
  const believed = `${message} This device believes it is ${date(now)}`
  if (now - system < APART_MS)
    return new AgentError(
      'gateway.expired',
      `${believed}.`,
      'Set the clock of this device if that is wrong; else renew the certificate of the gateway.',
    )
  return new AgentError(
    'gateway.expired',
    `${believed}, the latest that a gateway told it or that its certificate begins; its own clock says ${date(system)}.`,
    'Renew the certificate of the gateway. If a gateway once had the wrong time: enrol this device again, with a new token and an empty data directory.',
  )
}

function errorFor(fault: Fault, host: string, belief: Belief): AgentError {
  const message = `The certificate that ${host} presented is not acceptable: ${fault.says}.`
  if (fault.kind === 'wrong_name') {
    return new AgentError(
      'gateway.wrong_name',
      message,
      "Dial the gateway by a name in its certificate, or add this one to the gateway's names.",
    )
  }
  if (fault.kind === 'expired') return expiredError(message, belief)
  return new AgentError(
    'gateway.untrusted',
    message,
    'If the gateway is right, something between opens the TLS connection (an inspecting proxy): exempt it. If the CA was replaced, enrol again with the new --ca-sha256.',
  )
}

/** When the certificate that a server showed ends, epoch ms; undefined where it showed none. */
export function endOf(socket: TLSSocket): number | undefined {
  return socket.getPeerX509Certificate()?.validToDate.getTime()
}
