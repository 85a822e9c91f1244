/** A CA's first hour: a root that signs one issuing CA, and goes to the safe. */
import { keyIdentifier } from './algorithm.ts'
import { writeName } from './der/name.ts'
import { CaError } from './errors.ts'
import { signOver } from './issue.ts'
import { lint, type LintIssuer } from './lint.ts'
import { isTenant } from './name.ts'
import { profiles, type Profile } from './profile.ts'
import { newSerial } from './serial.ts'
import type { Signer } from './signer.ts'
import { compile, type SigningName } from './template.ts'
import { instant, type Instant, type Random } from './time.ts'

export interface Authority {
  /** DER. */
  readonly root: Uint8Array
  /** DER. */
  readonly issuing: Uint8Array
}

/**
 * Makes a root (20 years) and an issuing CA (5 years, pathlen 0), both named after `tenant` and
 * their key, so that a later CA never has the name of an earlier one.
 * Throws CaError `profile` (tenant is no host name with a dot), `signer.unavailable`.
 * There is no store yet: the caller keeps both certificates.
 */
export async function createAuthority(options: {
  readonly tenant: string
  /** P-384. */
  readonly root: Signer
  /** P-256. */
  readonly issuing: Signer
  readonly now: Instant
  readonly random: Random
}): Promise<Authority> {
  const { tenant, now, random } = options
  if (!isTenant(tenant))
    throw new CaError('profile', 'local', 'a tenant is a lower-case host name with a dot')
  const top = identity('Sallyport root', tenant, options.root)
  const below = identity('Sallyport issuing CA', tenant, options.issuing)
  const life = span(profiles.root, now)
  const limits = { ...top, ...life }
  const root = await certify(profiles.root, top, life, limits, options.root, random)
  const within = span(profiles.issuing, now)
  const issuing = await certify(profiles.issuing, below, within, limits, options.root, random)
  return { root, issuing }
}

interface Identity extends SigningName {
  readonly spki: Uint8Array
}

function identity(title: string, tenant: string, signer: Signer): Identity {
  const id = keyIdentifier(signer.publicKey)
  const subject = writeName([
    { type: 'organization', text: tenant.slice(0, 64) },
    { type: 'commonName', text: `${title} ${id.subarray(0, 4).toHex()}` },
  ])
  return { algorithm: signer.algorithm, subject, keyIdentifier: id, spki: signer.publicKey }
}

interface Span {
  readonly notBefore: Instant
  readonly notAfter: Instant
}

function span(profile: Profile, now: Instant): Span {
  const notBefore = Math.floor(now / 1_000) * 1_000 - 300_000
  return {
    notBefore: instant(notBefore),
    notAfter: instant(notBefore + (profile.lifetimeSeconds.usual - 1) * 1_000),
  }
}

async function certify(
  profile: Profile,
  subject: Identity,
  life: Span,
  issuer: LintIssuer & SigningName,
  signer: Signer,
  random: Random,
): Promise<Uint8Array> {
  const slots = { ...life, serial: newSerial(random), san: null }
  const tbs = compile(profile, issuer).fill({
    ...slots,
    subject: subject.subject,
    spki: subject.spki,
  })
  lint(tbs, profile, issuer)
  return await signOver(tbs, signer)
}
