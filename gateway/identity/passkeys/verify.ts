/**
 * What an authenticator answered, against what it was asked. Every assertion is verified twice, by our own check, whose
 * codes people see, and by the library; both must agree.
 */
import { isIP } from 'node:net'
import { verifyAuthenticationResponse, verifyRegistrationResponse } from '@simplewebauthn/server'
import { checkAssertion, readAssertion, type Assertion, type RelyingParty } from '#approval'
import { IdentityError } from '../errors.ts'
import type { PasskeyRow } from '../store.ts'
import type { BrowserAnswer } from './credential.ts'
import { ALGORITHMS, signingKey } from './key.ts'

/** The site at `origin` (`https://<host>:<port>`), as WebAuthn calls it: by its host, and by no origin but its own. */
export function relyingPartyOf(origin: string): RelyingParty {
  return { id: new URL(origin).hostname, origins: [origin] }
}

/** WebAuthn knows domains only: a gateway that is known by an IP address has no passkeys. */
export function mayHavePasskeys({ id }: RelyingParty): boolean {
  // An address in brackets is IPv6.
  return isIP(id.replace(/^\[|\]$/g, '')) === 0
}

/** Error: passkey.address. */
export function checkAddress(relyingParty: RelyingParty): void {
  if (!mayHavePasskeys(relyingParty)) throw new IdentityError('passkey.address')
}

/** The bytes of base64url. */
export const octets = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(Buffer.from(text, 'base64url'))

/** Whose a new passkey becomes, what it is called, and when (epoch milliseconds). */
export type Owned = Pick<PasskeyRow, 'sub' | 'name' | 'createdAt'>

/** The row of a new passkey, or undefined where the answer is none to `challenge` (base64url) of this relying party. */
export async function readNewPasskey(
  relyingParty: RelyingParty,
  challenge: string,
  { id, response }: BrowserAnswer,
  owned: Owned,
): Promise<PasskeyRow | undefined> {
  const verified = await verifyRegistrationResponse({
    response: {
      id,
      rawId: id,
      type: 'public-key',
      clientExtensionResults: {},
      response: {
        clientDataJSON: response.clientDataJSON,
        attestationObject: response.attestationObject ?? '',
      },
    },
    expectedChallenge: challenge,
    expectedOrigin: [...relyingParty.origins],
    expectedRPID: relyingParty.id,
    requireUserVerification: true,
    supportedAlgorithmIDs: [...ALGORITHMS],
  }).catch(() => undefined)
  const info = verified?.registrationInfo
  const key = info === undefined ? undefined : signingKey(info.credential.publicKey)
  if (verified?.verified !== true || info === undefined || key === undefined) return undefined
  return {
    ...owned,
    id: info.credential.id,
    ...key,
    cose: Buffer.from(info.credential.publicKey).toString('base64url'),
    counter: info.credential.counter,
    transports: (response.transports ?? []).filter((one) => /^[a-z-]{1,20}$/.test(one)).slice(0, 8),
    backedUp: info.credentialBackedUp,
    usedAt: null,
  }
}

export type Verdict =
  | { readonly ok: true; readonly assertion: Assertion; readonly counter: number }
  | { readonly ok: false; readonly code: string }

/** Whether the authenticator says that it answers for another person; one that does not say leaves it open. */
export function namesOther({ response }: BrowserAnswer, sub: string): boolean {
  const handle = response.userHandle ?? null
  return handle !== null && handle !== Buffer.from(sub).toString('base64url')
}

/** Whether the answer is this passkey's to `challenge` (base64url), given by a person who was verified. */
export async function checkAnswer(
  relyingParty: RelyingParty,
  challenge: string,
  row: PasskeyRow,
  answer: BrowserAnswer,
): Promise<Verdict> {
  const { response } = answer
  const assertion = readAssertion({
    credential: answer.id,
    authenticator_data: response.authenticatorData,
    client_data: response.clientDataJSON,
    signature: response.signature,
  })
  if (assertion === undefined) return { ok: false, code: 'assertion.malformed' }
  const { id: rpId, origins } = relyingParty
  const key = { alg: row.alg, spki: row.spki }
  const asked = { challenge: Buffer.from(challenge, 'base64url'), rpId, origins }
  const outcome = checkAssertion(assertion, key, asked)
  if (!outcome.ok) return { ok: false, code: outcome.code }
  const { counter } = outcome
  if (counter <= row.counter && (counter !== 0 || row.counter !== 0))
    return { ok: false, code: 'passkey.counter' }
  if (!(await agrees(relyingParty, challenge, row, answer)))
    return { ok: false, code: 'assertion.signature' }
  return { ok: true, assertion, counter }
}

/** The library's own verification of the same answer. */
async function agrees(
  relyingParty: RelyingParty,
  challenge: string,
  row: PasskeyRow,
  { id, response }: BrowserAnswer,
): Promise<boolean> {
  const verified = await verifyAuthenticationResponse({
    response: {
      id,
      rawId: id,
      type: 'public-key',
      clientExtensionResults: {},
      response: {
        clientDataJSON: response.clientDataJSON,
        authenticatorData: response.authenticatorData ?? '',
        signature: response.signature ?? '',
      },
    },
    expectedChallenge: challenge,
    expectedOrigin: [...relyingParty.origins],
    expectedRPID: relyingParty.id,
    requireUserVerification: true,
    credential: { id: row.id, publicKey: octets(row.cose), counter: row.counter },
  }).catch(() => undefined)
  return verified?.verified === true
}
