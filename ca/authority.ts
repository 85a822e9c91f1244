/** A CA's own certificates: a root, issuing CAs below it, what joins two roots, and a request to somebody else's root. */
import { keyIdentifier, signingIdentifier } from './algorithm.ts'
import { findExtension, readCertificate } from './der/certificate.ts'
import { writeName } from './der/name.ts'
import { oid, OID } from './der/oid.ts'
import { readDer } from './der/reader.ts'
import {
  bitString,
  boolean,
  context,
  namedBits,
  octetString,
  sequence,
  setOf,
  smallInteger,
} from './der/writer.ts'
import { CaError, relying } from './errors.ts'
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

interface Occasion {
  readonly tenant: string
  readonly now: Instant
  readonly random: Random
}

/** A root that is at hand: its certificate and what signs for it. */
export interface RootAtHand {
  /** DER. */
  readonly certificate: Uint8Array
  readonly signer: Signer
}

/**
 * Makes a root (20 years) and an issuing CA (5 years, pathlen 0), both named after `tenant` and
 * their key, so that a later CA never has the name of an earlier one.
 * Throws CaError `profile` (tenant is no host name with a dot), `signer.unavailable`.
 * There is no store yet: the caller keeps both certificates.
 */
export async function createAuthority(
  options: Occasion & {
    /** P-384. */
    readonly root: Signer
    /** P-256. */
    readonly issuing: Signer
  },
): Promise<Authority> {
  const root = await createRoot({ ...options, signer: options.root })
  const above = { certificate: root, signer: options.root }
  const issuing = await createIssuing({ ...options, root: above, signer: options.issuing })
  return { root, issuing }
}

/** A self-signed root, 20 years. Throws CaError `profile`, `signer.unavailable`. */
export async function createRoot(
  options: Occasion & { readonly signer: Signer },
): Promise<Uint8Array> {
  const { now, random, signer } = options
  const top = identity('Sallyport root', options.tenant, signer)
  const life = span(profiles.root, now)
  return await certify(profiles.root, top, life, { ...top, ...life }, signer, random)
}

/**
 * An issuing CA (5 years at most, within the root's life; pathlen 0) for the key of `signer`.
 * Throws CaError `profile`, `issuer.mismatch` (the signer is not the root's), `issuer.expired`
 * (less than 30 days are left of the root), `signer.unavailable`.
 */
export async function createIssuing(
  options: Occasion & { readonly root: RootAtHand; readonly signer: Signer },
): Promise<Uint8Array> {
  const { now, random, root } = options
  const issuer = issuerOf(root)
  const below = identity('Sallyport issuing CA', options.tenant, options.signer)
  const life = within(span(profiles.issuing, now), issuer)
  if (life.notAfter - now < profiles.issuing.lifetimeSeconds.least * 1_000)
    throw new CaError('issuer.expired', 'local', 'too little is left of the root: rotate it first')
  return await certify(profiles.issuing, below, life, issuer, root.signer, random)
}

/** What joins an old and a new root for those who know only one of them (RFC 4210 4.4; RFC 7030 4.1.3). */
export interface CrossCertificates {
  /** The old key, certified by the new root. */
  readonly oldWithNew: Uint8Array
  /** The new key, certified by the old root: devices that pinned the old one follow. */
  readonly newWithOld: Uint8Array
}

/** Both, each for as long as both roots live. Throws CaError `issuer.mismatch`, `signer.unavailable`. */
export async function crossCertify(
  old: RootAtHand,
  next: RootAtHand,
  { now, random }: Pick<Occasion, 'now' | 'random'>,
): Promise<CrossCertificates> {
  const [before, after] = [issuerOf(old), issuerOf(next)]
  const life = within(within(span(profiles.root, now), before), after)
  return {
    oldWithNew: await certify(profiles.root, before, life, after, next.signer, random),
    newWithOld: await certify(profiles.root, after, life, before, old.signer, random),
  }
}

/**
 * PKCS#10 for a CA above us: a subject after tenant and key, basic constraints with pathlen 0, key
 * usage, both critical (RFC 2986, RFC 5280 4.2.1). Throws CaError `profile`, `signer.unavailable`.
 */
export async function requestIssuing(tenant: string, signer: Signer): Promise<Uint8Array> {
  const { subject, spki } = identity('Sallyport issuing CA', tenant, signer)
  const constraints = sequence(boolean(true), smallInteger(0))
  const extensions = sequence(
    sequence(oid(OID.basicConstraints), boolean(true), octetString(constraints)),
    sequence(oid(OID.keyUsage), boolean(true), octetString(namedBits(5, 6))),
  )
  const attribute = sequence(oid(OID.extensionRequest), setOf(extensions))
  const info = sequence(smallInteger(0), subject, spki, context(0, attribute))
  const signature = await relying('signer.unavailable', () => signer.sign(info))
  return sequence(info, signingIdentifier[signer.algorithm], bitString(signature))
}

interface Identity extends SigningName {
  readonly spki: Uint8Array
}

function identity(title: string, tenant: string, signer: Signer): Identity {
  if (!isTenant(tenant))
    throw new CaError('profile', 'local', 'a tenant is a lower-case host name with a dot')
  const id = keyIdentifier(signer.publicKey)
  const subject = writeName([
    { type: 'organization', text: tenant.slice(0, 64) },
    { type: 'commonName', text: `${title} ${id.subarray(0, 4).toHex()}` },
  ])
  return { algorithm: signer.algorithm, subject, keyIdentifier: id, spki: signer.publicKey }
}

/** A CA certificate as the issuer of others. */
function issuerOf({ certificate, signer }: RootAtHand): Identity & LintIssuer {
  const { subject, spki, extensions, notBefore, notAfter } = readCertificate(certificate)
  if (spki.toHex() !== signer.publicKey.toHex())
    throw new CaError(
      'issuer.mismatch',
      'local',
      'the root key is not the key of the root certificate',
    )
  const named = findExtension(extensions, 'subjectKeyIdentifier')
  const id = named === undefined ? keyIdentifier(spki) : readDer(named.value).value
  return { algorithm: signer.algorithm, subject, keyIdentifier: id, spki, notBefore, notAfter }
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

function within(life: Span, issuer: { readonly notAfter: number }): Span {
  return { ...life, notAfter: instant(Math.min(life.notAfter, issuer.notAfter)) }
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
