/** One row per reason for which a request is nobody's: its status, its OAuth error, and its sentences. */
import type { AuthCode, AuthRefusal } from './subject.ts'

interface Row {
  readonly status: AuthRefusal['status']
  /** RFC 6750 3.1 and RFC 9449 7.1; null: a bare challenge, or none where a credential would not help. */
  readonly error: 'invalid_request' | 'invalid_token' | 'invalid_dpop_proof' | null
  readonly detail: string
  readonly nextStep: string
}

const SIGN_IN = 'Sign in again: `sallyport login`.'
const CLIENT = 'Use the Sallyport CLI, or an OAuth client that implements RFC 9449.'
const AGAIN = 'Send the request again with a fresh proof.'

const rows = {
  'token.missing': {
    status: 401,
    error: null,
    detail: 'The request carries no access token.',
    nextStep: 'Sign in: `sallyport login`.',
  },
  'token.scheme': {
    status: 401,
    error: 'invalid_request',
    detail:
      'Access tokens are bound to a key and come with the scheme DPoP, not as a bearer token.',
    nextStep: CLIENT,
  },
  'token.malformed': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token is not a compact JWS of at most 4096 characters.',
    nextStep: SIGN_IN,
  },
  'token.type': {
    status: 401,
    error: 'invalid_token',
    detail: 'The token is not an access token (typ at+jwt).',
    nextStep: SIGN_IN,
  },
  'token.algorithm': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token is not signed with ES256.',
    nextStep: SIGN_IN,
  },
  'token.signature': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token was not signed by this gateway, or was changed.',
    nextStep: SIGN_IN,
  },
  'token.issuer': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token names another issuer.',
    nextStep: SIGN_IN,
  },
  'token.audience': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token is for another service.',
    nextStep: 'Ask for a token with the resource of this API.',
  },
  'token.expired': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token has expired, or is not valid yet.',
    nextStep: 'Refresh it; if that is refused, sign in again: `sallyport login`.',
  },
  'token.claims': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token lacks a claim, or one has the wrong form.',
    nextStep: SIGN_IN,
  },
  'token.revoked': {
    status: 401,
    error: 'invalid_token',
    detail: 'This login was ended.',
    nextStep: SIGN_IN,
  },
  'account.disabled': {
    status: 401,
    error: 'invalid_token',
    detail: 'This account is disabled or was removed.',
    nextStep: 'Ask an administrator of the gateway.',
  },
  'proof.missing': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail: 'The header DPoP with a proof of possession is missing, or there are several.',
    nextStep: CLIENT,
  },
  'proof.malformed': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail:
      'The DPoP proof is not a JWT of type dpop+jwt with a public key, jti, htm, htu, iat and ath.',
    nextStep: CLIENT,
  },
  'proof.signature': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail: 'The DPoP proof is not signed by the key it shows, or with a wrong algorithm.',
    nextStep: AGAIN,
  },
  'proof.method': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail: 'The DPoP proof was made for another method.',
    nextStep: AGAIN,
  },
  'proof.url': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail: 'The DPoP proof was made for another address.',
    nextStep: 'Use the address of the gateway exactly as it calls itself.',
  },
  'proof.time': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail:
      'The DPoP proof is older than a minute or from the future, by the clock of this gateway.',
    nextStep: 'Set the clock of your machine, then send the request again with a fresh proof.',
  },
  'proof.token': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail: 'The DPoP proof was made for another access token.',
    nextStep: AGAIN,
  },
  'proof.key': {
    status: 401,
    error: 'invalid_token',
    detail: 'The access token is bound to another key than the one of the proof.',
    nextStep: SIGN_IN,
  },
  'proof.replayed': {
    status: 401,
    error: 'invalid_dpop_proof',
    detail: 'This DPoP proof was used before.',
    nextStep: AGAIN,
  },
  'proof.busy': {
    status: 429,
    error: null,
    detail: 'More proofs came within a minute than can be remembered.',
    nextStep: 'Wait a minute and send fewer requests.',
  },
  'store.unavailable': {
    status: 503,
    error: null,
    detail: 'The gateway cannot look up logins at this moment.',
    nextStep: 'Try again; an administrator finds the cause with `sallyport doctor`.',
  },
} as const satisfies Record<AuthCode, Row>

const PROOF_ALGORITHMS = 'ES256 Ed25519 EdDSA'

/** The refusal for a code, ready to be sent. */
export function refuse(code: AuthCode): AuthRefusal {
  const { status, error, detail, nextStep } = rows[code]
  return {
    refused: true,
    code,
    status,
    wwwAuthenticate: challenge(status, error, detail),
    detail,
    nextStep,
  }
}

function challenge(status: number, error: Row['error'], detail: string): string | null {
  if (status !== 401) return null
  const algorithms = `algs="${PROOF_ALGORITHMS}"`
  if (error === null) return `DPoP ${algorithms}`
  // The sentences above hold no quote and no backslash, as RFC 6750 3 asks of error_description.
  return `DPoP error="${error}", error_description="${detail}", ${algorithms}`
}
