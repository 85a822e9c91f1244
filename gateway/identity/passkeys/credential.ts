/** A passkey as its owner sees it, what a browser says of one, and what showing one is worth. */
import type { SecondFactors } from '../attempt.ts'
import type { PasskeyRow } from '../store.ts'
import type { Authentication } from '../subject.ts'

/** The acr of somebody who showed a passkey. */
export const ACR_PASSKEY = 'urn:sallyport:acr:passkey'
/**
 * Whether it was this gateway that was shown a passkey, at `at`: in `methods` a company's provider may have said so too,
 * and its passkeys are none of ours.
 */
export const shownHere = ({ acr }: Pick<Authentication, 'acr'>): boolean => acr === ACR_PASSKEY
/** The acr of somebody who gave a password and a code of their authenticator app. */
export const ACR_TOTP = 'urn:sallyport:acr:totp'
/** Whether a second factor was shown to this gateway itself, by passkey or by code. */
export const secondShown = (authn: Pick<Authentication, 'acr'>): boolean =>
  shownHere(authn) || authn.acr === ACR_TOTP
/** What second factor was shown to this gateway itself; null: none. */
export type Shown = 'passkey' | 'code' | null
export const shownOf = (authn: Pick<Authentication, 'acr'>): Shown =>
  shownHere(authn) ? 'passkey' : secondShown(authn) ? 'code' : null
/**
 * Whether who has shown `shown` may add a second factor to an account that has `held`: who has a passkey shows that, who
 * has an app a code or a passkey, so that a password alone makes none beside one that is there. It holds where the asking
 * begins and, of what is there then, where it lands.
 */
export const mayAdd = ({ passkey, code }: SecondFactors, shown: Shown): boolean =>
  passkey ? shown === 'passkey' : !code || shown !== null
/** How policy calls the method (policy: `subject.authn.methods`). */
export const METHOD = 'webauthn'

/** A passkey as its owner sees it. Instants are epoch milliseconds. */
export type Passkey = Pick<
  PasskeyRow,
  'id' | 'name' | 'alg' | 'backedUp' | 'createdAt' | 'usedAt' | 'spki'
>

export function shown({ id, name, alg, backedUp, createdAt, usedAt, spki }: PasskeyRow): Passkey {
  return { id, name, alg, backedUp, createdAt, usedAt, spki }
}

/** What the browser's `toJSON()` of a credential holds, as far as it is read. All base64url. */
export interface BrowserAnswer {
  readonly id: string
  readonly response: {
    readonly clientDataJSON: string
    readonly attestationObject?: string
    readonly authenticatorData?: string
    readonly signature?: string
    readonly userHandle?: string | null
    readonly transports?: readonly string[]
  }
}

/** The browser's answer in `text` (JSON), or undefined for what cannot be one. */
export function readBrowserAnswer(text: string): BrowserAnswer | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null || !('id' in value) || !('response' in value))
    return undefined
  const { id, response } = value
  if (typeof id !== 'string' || typeof response !== 'object' || response === null) return undefined
  const members = new Map<string, unknown>(Object.entries(response))
  const text64 = (name: string): string => {
    const member = members.get(name)
    return typeof member === 'string' ? member : ''
  }
  const handle = members.get('userHandle')
  const ways = members.get('transports')
  return {
    id,
    response: {
      clientDataJSON: text64('clientDataJSON'),
      attestationObject: text64('attestationObject'),
      authenticatorData: text64('authenticatorData'),
      signature: text64('signature'),
      userHandle: typeof handle === 'string' ? handle : null,
      transports: Array.isArray(ways) ? ways.filter((way) => typeof way === 'string') : [],
    },
  }
}
