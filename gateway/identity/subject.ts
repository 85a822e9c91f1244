/** Who is asking, in the words policy reads (policy.md section 3), or why nobody is. */

/** The policy envelope's `subject`. Every key is always present; unknown is null. */
export interface Subject {
  /** `<issuer>|<sub>`: one person under one provider. */
  readonly id: string
  readonly issuer: string
  /** `service`: a program, in its own name. */
  readonly kind: 'human' | 'service'
  readonly party: Party
  /** The company of a vendor; null for staff. */
  readonly vendor: string | null
  readonly email: string
  readonly groups: readonly string[]
  readonly roles: readonly string[]
  /** Epoch seconds at which the login stops being good unless it is refreshed. */
  readonly token_exp: number
  readonly authn: Authentication
  readonly claims: Readonly<Record<string, string>>
  readonly break_glass: null
}

export type Party = 'staff' | 'vendor'

/** How and when the person proved who they are. */
export interface Authentication {
  /** RFC 8176 names as the provider recorded them: `pwd` today. */
  readonly methods: readonly string[]
  readonly acr: string
  /** Epoch seconds. */
  readonly at: number
}

/**
 * The login behind a subject: what a session keeps (JSON data) to ask later whether it still stands.
 * `login` is the provider's grant id; it names a login and is no credential.
 */
export interface Login {
  readonly subject: string
  readonly login: string
  readonly client: string
  readonly authn: Authentication
}

/** What `authenticate` reads of a request. */
export interface AuthRequest {
  readonly method: string
  /** Origin-form (`/api/v1/me?x=y`) or absolute on our own origin. */
  readonly url: string
  /** As node:http gives them: lower-case names. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
}

/** Closed: every way in which a request is nobody's. */
export type AuthCode =
  | 'token.missing'
  | 'token.scheme'
  | 'token.malformed'
  | 'token.type'
  | 'token.algorithm'
  | 'token.signature'
  | 'token.issuer'
  | 'token.audience'
  | 'token.expired'
  | 'token.claims'
  | 'token.revoked'
  | 'account.disabled'
  | 'proof.missing'
  | 'proof.malformed'
  | 'proof.signature'
  | 'proof.method'
  | 'proof.url'
  | 'proof.time'
  | 'proof.token'
  | 'proof.key'
  | 'proof.replayed'
  | 'proof.busy'
  | 'store.unavailable'

/** An expected no, ready to be sent: status, challenge, and sentences for a person. */
export interface AuthRefusal {
  readonly refused: true
  readonly code: AuthCode
  readonly status: 400 | 401 | 429 | 503
  /** RFC 9449 7.1: value of WWW-Authenticate; null where no credential would help. */
  readonly wwwAuthenticate: string | null
  readonly detail: string
  readonly nextStep: string
}

/** Tells the two answers of `authenticate` apart. */
export function isRefusal(answer: Subject | AuthRefusal): answer is AuthRefusal {
  return 'refused' in answer
}
