/** A profile and an issuer compiled once: fixed bytes, and slots for what differs (RFC 5280 4.1, 4.2). */
import { keyIdentifier, signingIdentifier } from './algorithm.ts'
import { oid, OID } from './der/oid.ts'
import { TAG } from './der/reader.ts'
import {
  boolean,
  context,
  contextPrimitive,
  join,
  namedBits,
  octetString,
  Pen,
  sequence,
  sized,
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
/** RFC 7093 2, method 1: 160 bits. */
const KEY_ID_LENGTH = 20
const EXTENSIONS = 0xa3
const SAN_OID = oid(OID.subjectAltName)
const NOTHING = new Uint8Array(0)

/** Compiles one profile for one issuer: every length and octet that no slot changes. */
export function compile(profile: Profile, issuer: SigningName): Template {
  const signer = join(signingIdentifier[issuer.algorithm], issuer.subject)
  // The key identifier is the last thing in its extension: everything up to it is fixed.
  const own = extension('subjectKeyIdentifier', false, octetString(new Uint8Array(KEY_ID_LENGTH)))
  const head = join(...fixedExtensions(profile), own.subarray(0, -KEY_ID_LENGTH))
  const authority = extension('authorityKeyIdentifier', false, keyIdOf(issuer.keyIdentifier))
  const [brief, long] = [join(...tail(profile, true)), join(...tail(profile, false))]
  const validities = new Validity()
  const fill = ({ serial, notBefore, notAfter, subject, spki, san }: Slots): Uint8Array => {
    const [number, validity] = [contentsOf(serial), validities.of(notBefore, notAfter)]
    const end = notAfter - notBefore <= NO_REVOCATION_SECONDS * 1_000 ? brief : long
    const names = san === null ? 0 : SAN_OID.length + sized(san.length)
    const extensions =
      head.length +
      KEY_ID_LENGTH +
      authority.length +
      (san === null ? 0 : sized(names)) +
      end.length
    const length =
      VERSION_3.length +
      sized(number.length) +
      signer.length +
      validity.length +
      subject.length +
      spki.length +
      sized(sized(extensions))
    const pen = new Pen(sized(length))
    pen.head(TAG.sequence, length)
    pen.put(VERSION_3)
    pen.head(TAG.integer, number.length)
    pen.put(number)
    pen.put(signer)
    pen.put(validity)
    pen.put(subject)
    pen.put(spki)
    pen.head(EXTENSIONS, sized(extensions))
    pen.head(TAG.sequence, extensions)
    pen.put(head)
    pen.put(keyIdentifier(spki))
    pen.put(authority)
    if (san !== null) {
      // RFC 5280 4.2.1.6: critical when the subject is empty; ours never is.
      pen.head(TAG.sequence, names)
      pen.put(SAN_OID)
      pen.head(TAG.octetString, san.length)
      pen.put(san)
    }
    pen.put(end)
    return pen.bytes
  }
  return { profile, fill }
}

/** What an INTEGER holds for this magnitude: a serial number of ours is that already. */
function contentsOf(magnitude: Uint8Array): Uint8Array {
  const first = magnitude[0] ?? 0
  return first > 0 && first < 0x80 ? magnitude : unsignedInteger(magnitude).subarray(2)
}

/** The validity last encoded: what is issued within a second, for a life, shares it. */
class Validity {
  #from = Number.NaN
  #to = Number.NaN
  #bytes: Uint8Array = NOTHING
  /** SEQUENCE of both dates, not to be written to. */
  of(from: number, to: number): Uint8Array {
    if (from !== this.#from || to !== this.#to) {
      this.#bytes = sequence(time(from), time(to))
      this.#from = from
      this.#to = to
    }
    return this.#bytes
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
function tail(profile: Profile, brief: boolean): readonly Uint8Array[] {
  return profile.ca === null && brief ? [extension('noRevAvail', false, tlv(TAG.null))] : []
}
