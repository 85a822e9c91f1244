/** A profile and an issuer compiled once: fixed bytes, and slots for what differs (RFC 5280 4.1, 4.2). */
import { keyIdentifier, signingIdentifier } from './algorithm.ts'
import { oid, OID } from './der/oid.ts'
import { TAG } from './der/reader.ts'
import {
  boolean,
  context,
  contextPrimitive,
  namedBits,
  octetString,
  sequence,
  smallInteger,
  time,
  tlv,
  unsignedInteger,
} from './der/writer.ts'
import type { Profile } from './profile.ts'
import type { SigningAlgorithm } from './signer.ts'
import type { Instant } from './time.ts'

/** What a template needs to know of who signs. */
export interface SigningName {
  readonly algorithm: SigningAlgorithm
  /** Subject Name of the issuer, DER. */
  readonly subject: Uint8Array
  /** Its subject key identifier. */
  readonly keyIdentifier: Uint8Array
}

export interface Slots {
  readonly serial: Uint8Array
  readonly notBefore: Instant
  readonly notAfter: Instant
  /** Name, DER. */
  readonly subject: Uint8Array
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array
  /** GeneralNames, DER; null for a CA or an OCSP responder. */
  readonly san: Uint8Array | null
}

export interface Template {
  readonly profile: Profile
  /** Fills the slots; gives the TBSCertificate, DER. Throws DerError if `spki` is none. */
  readonly fill: (slots: Slots) => Uint8Array
}

const VERSION_3 = context(0, smallInteger(2))
const KEY_USAGE = { digitalSignature: 0, keyCertSign: 5, cRLSign: 6 } as const
const NO_REVOCATION_SECONDS = 24 * 3_600

/** Compiles one profile for one issuer. */
export function compile(profile: Profile, issuer: SigningName): Template {
  const algorithm = signingIdentifier[issuer.algorithm]
  const head = fixedExtensions(profile)
  const authority = extension('authorityKeyIdentifier', false, keyIdOf(issuer.keyIdentifier))
  return {
    profile,
    fill: ({ serial, notBefore, notAfter, subject, spki, san }) => {
      const extensions = [
        ...head,
        extension('subjectKeyIdentifier', false, octetString(keyIdentifier(spki))),
        authority,
        // RFC 5280 4.2.1.6: critical when the subject is empty; ours never is.
        ...(san === null ? [] : [extension('subjectAltName', false, san)]),
        ...tail(profile, notAfter - notBefore),
      ]
      return sequence(
        VERSION_3,
        unsignedInteger(serial),
        algorithm,
        issuer.subject,
        sequence(time(notBefore), time(notAfter)),
        subject,
        spki,
        context(3, sequence(...extensions)),
      )
    },
  }
}

function keyIdOf(identifier: Uint8Array): Uint8Array {
  return sequence(contextPrimitive(0, identifier))
}

function extension(name: keyof typeof OID, critical: boolean, value: Uint8Array): Uint8Array {
  const flag = critical ? [boolean(true)] : []
  return sequence(oid(OID[name]), ...flag, octetString(value))
}

function fixedExtensions(profile: Profile): readonly Uint8Array[] {
  if (profile.ca !== null) {
    const { pathLength } = profile.ca
    const constraints = pathLength === null ? [] : [smallInteger(pathLength)]
    return [
      extension('basicConstraints', true, sequence(boolean(true), ...constraints)),
      extension('keyUsage', true, namedBits(KEY_USAGE.keyCertSign, KEY_USAGE.cRLSign)),
    ]
  }
  const purposes = profile.extendedKeyUsage.map((purpose) => oid(OID[purpose]))
  return [
    extension('keyUsage', true, namedBits(KEY_USAGE.digitalSignature)),
    extension('extendedKeyUsage', false, sequence(...purposes)),
    // RFC 6960 4.2.2.2.1: nobody asks a responder about the responder itself.
    ...(profile.responder === true ? [extension('ocspNoCheck', false, tlv(TAG.null))] : []),
  ]
}

/** RFC 9608: a certificate that ends within a day says that nobody will publish its revocation. */
function tail(profile: Profile, lifeMs: number): readonly Uint8Array[] {
  const brief = profile.ca === null && lifeMs <= NO_REVOCATION_SECONDS * 1_000
  return brief ? [extension('noRevAvail', false, tlv(TAG.null))] : []
}
