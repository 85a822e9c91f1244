/** One rule per clause, over the bytes about to be signed; what breaks one is never signed. */
import { keyIdentifier } from './algorithm.ts'
import { findExtension, readTbs, type Extension, type ToBeSigned } from './der/certificate.ts'
import { readGeneralNames, readName } from './der/name.ts'
import { OID, oidOf } from './der/oid.ts'
import { childrenOf, DerError, readDer, sameBytes, TAG } from './der/reader.ts'
import { CaError } from './errors.ts'
import type { Profile } from './profile.ts'

export interface LintIssuer {
  readonly subject: Uint8Array
  readonly keyIdentifier: Uint8Array
  /** Epoch ms. */
  readonly notBefore: number
  /** Epoch ms. */
  readonly notAfter: number
}

interface Subject {
  readonly tbs: ToBeSigned
  readonly profile: Profile
  readonly issuer: LintIssuer
}
/** Named after the clause, because that is what the message shows. */
type Rule = (subject: Subject) => boolean

const KEY_USAGE_BITS = { ca: '0106', endEntity: '0780' } as const

export const rules: Readonly<Record<string, Rule>> = {
  'RFC 5280 4.1.2.2: serial is 16 octets, positive': ({ tbs }) =>
    /^[4-7][0-9a-f]{31}$/.test(tbs.serial),
  'RFC 5280 4.1.2.4: issuer is the signer': ({ tbs, issuer }) =>
    sameBytes(tbs.issuer, issuer.subject),
  'RFC 5280 4.1.2.5: it starts before it ends, on whole seconds': ({ tbs }) =>
    tbs.notBefore < tbs.notAfter,
  'design 2.34: it ends within its issuer': ({ tbs, issuer }) => tbs.notAfter <= issuer.notAfter,
  'design 3: its life is within the profile': ({ tbs, profile }) =>
    tbs.notAfter - tbs.notBefore < profile.lifetimeSeconds.most * 1_000,
  'RFC 5280 A.1: common name of 1 to 64 characters': ({ tbs }) => {
    const names = readName(tbs.subject).flat()
    const common = names.filter((each) => each.oid === OID.commonName)
    const length = common[0]?.text.length ?? 0
    return common.length === 1 && length > 0 && length <= 64
  },
  'RFC 5280 A.1: serialNumber is PrintableString': ({ tbs }) =>
    readName(tbs.subject)
      .flat()
      .every((each) => each.oid !== OID.serialNumber || each.value[0] === TAG.printable),
  "RFC 5280 4.2.1.3: key usage is critical and the profile's": ({ tbs, profile }) => {
    const usage = findExtension(tbs.extensions, 'keyUsage')
    const bits = profile.ca === null ? KEY_USAGE_BITS.endEntity : KEY_USAGE_BITS.ca
    return usage?.critical === true && readDer(usage.value).value.toHex() === bits
  },
  'RFC 5280 4.2.1.9: basic constraints, critical, in CAs only': ({ tbs, profile }) => {
    const constraints = findExtension(tbs.extensions, 'basicConstraints')
    return profile.ca === null ? constraints === undefined : constraints?.critical === true
  },
  "RFC 5280 4.2.1.12: extended key usage is the profile's": ({ tbs, profile }) => {
    const purposes = purposesOf(findExtension(tbs.extensions, 'extendedKeyUsage'))
    const wanted = profile.extendedKeyUsage.map((purpose) => OID[purpose])
    return wanted.every((each) => purposes.includes(each)) && purposes.every(isOurPurpose)
  },
  'RFC 7093 2: subject key identifier is of the key': ({ tbs }) => {
    const extension = findExtension(tbs.extensions, 'subjectKeyIdentifier')
    return (
      extension !== undefined && sameBytes(readDer(extension.value).value, keyIdentifier(tbs.spki))
    )
  },
  "RFC 5280 4.2.1.1: authority key identifier is the issuer's": ({ tbs, issuer }) => {
    const extension = findExtension(tbs.extensions, 'authorityKeyIdentifier')
    const id = extension === undefined ? undefined : readDer(extension.value).children[0]
    return id !== undefined && id.tag === 0x80 && sameBytes(id.value, issuer.keyIdentifier)
  },
  'RFC 5280 4.2.1.6: an end entity has a SAN of known names': ({ tbs, profile }) => {
    const san = findExtension(tbs.extensions, 'subjectAltName')
    if (profile.ca !== null) return san === undefined
    return san !== undefined && !san.critical && readGeneralNames(san.value).length > 0
  },
  'RFC 9608 4: no revocation pointer beside noRevAvail, and only within a day': ({ tbs }) => {
    const none = findExtension(tbs.extensions, 'noRevAvail') !== undefined
    return none === tbs.notAfter - tbs.notBefore <= 86_400_000
  },
}

function purposesOf(extension: Extension | undefined): readonly string[] {
  if (extension === undefined) return []
  const list = childrenOf(readDer(extension.value), TAG.sequence, 'ExtKeyUsageSyntax')
  return list.map((purpose) => oidOf(purpose, 'a purpose'))
}

function isOurPurpose(purpose: string): boolean {
  return purpose === OID.serverAuth || purpose === OID.clientAuth || purpose === OID.cmcRa
}

/** Throws CaError `lint` naming every broken rule; our mistake, never the requester's. */
export function lint(der: Uint8Array, profile: Profile, issuer: LintIssuer): void {
  const broken = brokenRules(der, profile, issuer)
  if (broken.length > 0) throw new CaError('lint', 'local', `not signed: ${broken.join('; ')}`)
}

/** The names of the rules these bytes break. */
export function brokenRules(
  der: Uint8Array,
  profile: Profile,
  issuer: LintIssuer,
): readonly string[] {
  try {
    const subject = { tbs: readTbs(der), profile, issuer }
    return Object.entries(rules).flatMap(([name, holds]) => (holds(subject) ? [] : [name]))
  } catch (error) {
    if (error instanceof DerError) return [`RFC 5280 4.1: ${error.message}`]
    throw error
  }
}
