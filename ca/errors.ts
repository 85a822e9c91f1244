/** Every way this room says no. est.ts alone turns a code into HTTP. */

export type CaCode =
  // the request as HTTP
  | 'path.unknown'
  | 'label.unknown'
  | 'operation.off'
  | 'operation.unsupported'
  | 'method'
  | 'media_type'
  | 'body.length'
  | 'body.base64'
  | 'rate'
  // the request as PKCS#10
  | 'der'
  | 'csr.structure'
  | 'csr.attribute'
  | 'csr.algorithm'
  | 'csr.signature'
  | 'key.algorithm'
  | 'key.weak'
  | 'key.bound'
  | 'key.compromised'
  | 'name.subject'
  | 'name.san'
  | 'name.change'
  | 'binding.required'
  | 'binding.mismatch'
  // who asks
  | 'credential'
  | 'token.bound'
  | 'token.label'
  | 'certificate.required'
  | 'operation.swapped'
  | 'device.unknown'
  | 'device.state'
  | 'device.claimed'
  | 'idevid.serial'
  | PeerCode
  // whether they may
  | 'policy.denied'
  | 'policy.pending'
  | 'approval.rejected'
  // ourselves
  | 'profile'
  | 'lint'
  | 'draft.spent'
  | 'issuer.mismatch'
  | 'issuer.expired'
  | 'issuer.revoked'
  | 'signer.algorithm'
  | 'signer.unavailable'
  | 'store.unavailable'
  | 'log.unavailable'
  | 'decision.unavailable'
  | 'internal'

/** Why a client's chain is nobody to us. */
export type PeerCode =
  | 'peer.none'
  | 'peer.malformed'
  | 'peer.issuer'
  | 'peer.signature'
  | 'peer.ca'
  | 'peer.purpose'
  | 'peer.extension'
  | 'peer.name'
  | 'peer.early'
  | 'peer.expired'
  | 'peer.unknown'
  | 'peer.revoked'
  | 'peer.superseded'

export type Fault = 'local' | 'remote'

/** What a policy said no for; the shape is the decision document's. */
export interface Denial {
  readonly code: string
  readonly msg: string
  readonly remedy?: string | undefined
}

interface Detail extends ErrorOptions {
  readonly denials?: readonly Denial[]
  readonly decisionId?: string
  readonly revision?: string | null
  readonly retryAfterSeconds?: number
  readonly allow?: string
}

export class CaError extends Error {
  override readonly name = 'CaError'
  readonly code: CaCode
  /** Whose mistake it is: the caller's far side, or ours. */
  readonly fault: Fault
  /** Every denial, when a policy refused. */
  readonly denials: readonly Denial[]
  readonly decisionId: string | null
  /** Of the policy that refused. */
  readonly revision: string | null
  /** When asking again makes sense. */
  readonly retryAfterSeconds: number | null
  /** The method that would have been right. */
  readonly allow: string | null
  constructor(code: CaCode, fault: Fault, message: string, detail: Detail = {}) {
    super(message, 'cause' in detail ? { cause: detail.cause } : undefined)
    this.code = code
    this.fault = fault
    this.denials = detail.denials ?? []
    this.decisionId = detail.decisionId ?? null
    this.revision = detail.revision ?? null
    this.retryAfterSeconds = detail.retryAfterSeconds ?? null
    this.allow = detail.allow ?? null
  }
}

/** A refusal of what the other side sent. */
export function refuse(code: CaCode, message: string, detail: Detail = {}): CaError {
  return new CaError(code, 'remote', message, detail)
}

/** Awaits something that is not ours and gives its failure our code. */
export async function relying<T>(code: CaCode, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof CaError) throw cause
    throw new CaError(code, 'local', FAILED[code] ?? 'a part this answer needs has failed', {
      cause,
    })
  }
}

const FAILED: Partial<Record<CaCode, string>> = {
  'store.unavailable': 'the store does not answer',
  'log.unavailable': 'the audit log cannot record this',
  'signer.unavailable': 'the CA key does not sign',
  'decision.unavailable': 'the policy does not answer',
}
