/** Codes of an authenticator app (RFC 6238): six digits of SHA-1, a step of 30 s. Pure: secret and time are arguments. */
import { Secret, TOTP } from 'otpauth'

/** Every app reads these; many read no others, whatever the link says. */
const FORM = { algorithm: 'SHA1', digits: 6, period: 30 } as const
/** RFC 6238 5.2: one step back for a slow hand, one ahead for a fast clock. */
const WINDOW = 1
/** RFC 4226 4, R6: 160 bits. */
const SECRET_BYTES = 20

/** A new secret, base 32. */
export function newTotpSecret(): string {
  return new Secret({ size: SECRET_BYTES }).base32
}

/** The link that an app reads, as it stands in the QR code; `site` and `email` are what it shows beside its codes. */
export function totpUri(secret: string, site: string, email: string): string {
  return new TOTP({ ...FORM, issuer: `Sallyport ${site}`, label: email, secret }).toString()
}

/** What a person types, blanks and hyphens apart, where it has the form of a code. */
export function readCode(typed: string): string | undefined {
  const code = typed.slice(0, 40).replaceAll(/[\s-]/g, '')
  return /^[0-9]{6}$/.test(code) ? code : undefined
}

/** The time step that a code is of, at `now` (epoch milliseconds); undefined: of none that counts. Constant time. */
export function stepOf(secret: string, code: string, now: number): number | undefined {
  const delta = TOTP.validate({
    ...FORM,
    secret: Secret.fromBase32(secret),
    token: code,
    timestamp: now,
    window: WINDOW,
  })
  return delta === null ? undefined : TOTP.counter({ period: FORM.period, timestamp: now }) + delta
}
