/**
 * What approvers' passkeys signed, as devices in two-key mode are shown it: with the opening of a connection, and with the
 * news that it lasts longer.
 */
import type { Rules } from '#ot'
import { expiresAt, type Extension, type Grant } from '../grants/grant.ts'
import type { LiveSession, SignedOpening } from './live.ts'

export const encode = (value: unknown): Uint8Array<ArrayBuffer> =>
  new TextEncoder().encode(JSON.stringify(value))

/** What the device may ask to see: the statement, and what approvers' passkeys signed of it. */
export function signedOpening(grant: Grant): SignedOpening | null {
  // An extension that nobody signed lengthens nothing there; the grant itself still lets them in.
  return (grant.extension === null ? null : signedOf(grant.extension)) ?? signedOf(grant)
}

function signedOf({ statement, approvals }: Extension): SignedOpening | null {
  const assertions = approvals.flatMap(({ signature }) =>
    signature === null ? [] : [signature.assertion],
  )
  return assertions.length === 0 ? null : { statement, assertions }
}

/** Of what was extended, that itself, where it was signed and its own time runs at `now` (epoch milliseconds); else null. */
export function signedBefore(
  grants: readonly Grant[],
  shown: SignedOpening | null,
  now: number,
): SignedOpening | null {
  const extended = shown?.statement.extends?.grant
  const grant = grants.find(({ statement }) => statement.id === extended)
  if (grant === undefined || now >= expiresAt({ ...grant, extension: null }) * 1000) return null
  return signedOf(grant)
}

/** What the device must see signed: of a connection that may write, the grant to write and not the one to read. */
export function signedFor(session: LiveSession, gate: Rules | undefined): SignedOpening | null {
  const [write] = session.elevation.grants
  return gate !== undefined && gate.level > 1 && write !== undefined
    ? signedOpening(write)
    : session.signed
}

/** docs/protocol.md: metadata in OPEN. */
const MAX_METADATA_BYTES = 4096

/**
 * With what the approvers signed, which only devices in two-key mode read: of the signatures, one a person, as many as
 * there is room for, the shortest first, so that they are of the most people. Where not one fits the device will say so.
 */
export function openMetadata(
  facts: object,
  signed: LiveSession['signed'],
): { readonly metadata: Uint8Array; readonly tooLong: boolean } {
  if (signed === null) return { metadata: encode(facts), tooLong: false }
  const length = (assertion: object) => JSON.stringify(assertion).length
  const assertions = signed.assertions.toSorted((one, other) => length(one) - length(other))
  for (let count = assertions.length; count > 0; count--) {
    const grant = { ...signed, assertions: assertions.slice(0, count) }
    const metadata = encode({ ...facts, grant })
    if (metadata.length <= MAX_METADATA_BYTES) return { metadata, tooLong: false }
  }
  return { metadata: encode({ ...facts, grant: 'too_long' }), tooLong: true }
}

/** The news for a device: how long a connection held to `gate` lasts from `now` (epoch milliseconds) on. */
export function leaseOf(session: LiveSession, gate: Rules | undefined, now: number): Uint8Array {
  const remaining_ms = Math.max(0, Math.round(session.end() - now))
  return openMetadata({ t: 'lease', remaining_ms }, signedFor(session, gate)).metadata
}

/** Whether an OPEN has room for it. */
export function fits(metadata: Uint8Array): boolean {
  return metadata.length <= MAX_METADATA_BYTES
}
