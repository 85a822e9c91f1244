/** One rule per clause, over the bytes about to be signed; what breaks one is never signed. */
import { keyIdentifier } from './algorithm.ts'
import { findExtension, readTbs, type Extension, type ToBeSigned } from './der/certificate.ts'
import {
  checkGeneralNames,
  readName,
  writeGeneralNames,
  writeName,
  type Attribute,
} from './der/name.ts'
import { oid, OID, oidOf } from './der/oid.ts'
import { childrenOf, DerError, readDer, sameBytes, TAG } from './der/reader.ts'
import { bitString, sequence } from './der/writer.ts'
import { CaError } from './errors.ts'
import type { Profile } from './profile.ts'
import type { Slots, Template } from './template.ts'
import { instant } from './time.ts'

export interface LintIssuer {
  readonly subject: Uint8Array
  readonly keyIdentifier: Uint8Array
  /** Epoch ms. */
  readonly notBefore: number
  /** Epoch ms. */
  readonly notAfter: number
}

/** What differs from one certificate of a template to the next. */
export interface Content {
  /** The INTEGER's contents. */
  readonly serial: Uint8Array
  /** Epoch ms. */
  readonly notBefore: number
  readonly notAfter: number
  readonly names: readonly Attribute[]
  /** GeneralNames, DER. */
  readonly san: Uint8Array | undefined
}
interface Terms {
  readonly profile: Profile
  readonly issuer: LintIssuer
}
interface Subject extends Terms {
  readonly tbs: ToBeSigned
}
/** Named after the clause, because that is what the message shows. */
type Rule = readonly [clause: string, holds: (of: Subject) => boolean]

const KEY_USAGE_BITS = { ca: '0106', endEntity: '0780' } as const

const POINTERS: ReadonlySet<string> = new Set([
  OID.crlDistributionPoints,
  OID.freshestCrl,
  OID.authorityInfoAccess,
])

/** What a template can break: checked on a template's samples, and on finished bytes. */
const fixedRules: Readonly<Record<string, Rule[1]>> = {
  'RFC 5280 4.1.2.4: issuer is the signer': ({ tbs, issuer }) =>
    sameBytes(tbs.issuer, issuer.subject),
  "RFC 5280 4.2.1.3: key usage is critical and the profile's": ({ tbs, profile }) => {
    const usage = findExtension(tbs.extensions, 'keyUsage')
    const bits = profile.ca === null ? KEY_USAGE_BITS.endEntity : KEY_USAGE_BITS.ca
    return usage?.critical === true && readDer(usage.value).value.toHex() === bits
  },
  'RFC 5280 4.2.1.6: a SAN is not critical beside a subject': ({ tbs }) =>
    findExtension(tbs.extensions, 'subjectAltName')?.critical !== true,
  'RFC 5280 4.2.1.9: basic constraints, critical, in CAs only': ({ tbs, profile }) => {
    const constraints = findExtension(tbs.extensions, 'basicConstraints')
    return profile.ca === null ? constraints === undefined : constraints?.critical === true
  },
  "RFC 5280 4.2.1.12: extended key usage is the profile's": ({ tbs, profile }) => {
    const purposes = purposesOf(findExtension(tbs.extensions, 'extendedKeyUsage'))
    const wanted: readonly string[] = profile.extendedKeyUsage.map((purpose) => OID[purpose])
    return (
      wanted.every((each) => purposes.includes(each)) &&
      purposes.every((each) => wanted.includes(each) || isOurPurpose(each))
    )
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
  'RFC 6960 4.2.2.2.1: nocheck in OCSP responders only': ({ tbs, profile }) => {
    const none = findExtension(tbs.extensions, 'ocspNoCheck') !== undefined
    return none === (profile.responder === true)
  },
  'decision 0007: no address of a list or a responder': ({ tbs }) =>
    !tbs.extensions.some((each) => POINTERS.has(each.oid)),
  'RFC 9608 4: noRevAvail in end entities, within a day, and always there': ({ tbs, profile }) => {
    const none = findExtension(tbs.extensions, 'noRevAvail') !== undefined
    return none === (profile.ca === null && tbs.notAfter - tbs.notBefore <= DAY_MS)
  },
}

/** What a slot can break. */
const slotRules = {
  serial: 'RFC 5280 4.1.2.2: serial is 16 octets, positive',
  dates: 'RFC 5280 4.1.2.5: it starts before it ends, on whole seconds',
  within: 'design 2.34: it ends within its issuer',
  life: 'design 3: its life is within the profile',
  commonName: 'RFC 5280 A.1: common name of 1 to 64 characters',
  serialNumber: 'RFC 5280 A.1: serialNumber is PrintableString',
  san: 'RFC 5280 4.2.1.6: an end entity has a SAN of known names',
} as const

/**
 * Checked for every certificate, and in one function: the processor forgets the others' code while
 * it signs, and fetching seven costs more than running them. Throws DerError.
 */
function brokenSlots(content: Content, { profile, issuer }: Terms): readonly string[] {
  const { serial, notBefore, notAfter, names, san } = content
  const broken: string[] = []
  if (serial.length !== 16 || ((serial[0] ?? 0) & 0xc0) !== 0x40) broken.push(slotRules.serial)
  if (!(notBefore < notAfter) || notBefore % 1_000 !== 0 || notAfter % 1_000 !== 0)
    broken.push(slotRules.dates)
  if (!(notAfter <= issuer.notAfter)) broken.push(slotRules.within)
  if (!(notAfter - notBefore < profile.lifetimeSeconds.most * 1_000)) broken.push(slotRules.life)
  let [count, length] = [0, 0]
  for (const { oid: type, text, tag } of names)
    if (type === OID.commonName) [count, length] = [count + 1, text.length]
    else if (type === OID.serialNumber && tag !== TAG.printable) broken.push(slotRules.serialNumber)
  if (count !== 1 || length === 0 || length > 64) broken.push(slotRules.commonName)
  if (san !== undefined) checkGeneralNames(san)
  const named = profile.ca === null && profile.responder !== true
  if ((san !== undefined) !== named) broken.push(slotRules.san)
  return broken
}

const fixedList = Object.entries(fixedRules)

/** The names of all rules. */
export const rules: readonly string[] = [...Object.keys(fixedRules), ...Object.values(slotRules)]

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
  demand(brokenRules(der, profile, issuer))
}

/** The names of the rules these bytes break. */
export function brokenRules(
  der: Uint8Array,
  profile: Profile,
  issuer: LintIssuer,
): readonly string[] {
  return reading(() => {
    const tbs = readTbs(der)
    const { notBefore, notAfter } = tbs
    const serial = Uint8Array.fromHex(tbs.serial)
    const names = attributesOf(tbs.subject)
    const san = findExtension(tbs.extensions, 'subjectAltName')?.value
    return [
      ...broken(fixedList, { tbs, profile, issuer }),
      ...brokenSlots({ serial, notBefore, notAfter, names, san }, { profile, issuer }),
    ]
  })
}

/**
 * Checks once what no slot changes, on samples of the shortest life, of a day, and of the longest:
 * a template has a form for each. Throws CaError `lint`.
 */
export function lintTemplate({ profile, fill }: Template, issuer: LintIssuer): void {
  for (const life of [SECOND_MS, DAY_MS, DAY_MS + SECOND_MS, profile.lifetimeSeconds.most * 1_000])
    demand(
      reading(() => {
        const tbs = readTbs(fill({ ...SAMPLE, notAfter: instant(SAMPLE.notBefore + life) }))
        return broken(fixedList, { tbs, profile, issuer })
      }),
    )
}

/** Checks what the slots of one certificate say; with `lintTemplate` it is all of `lint`. Throws CaError `lint`. */
export function lintSlots(slots: Slots, profile: Profile, issuer: LintIssuer): void {
  const { serial, notBefore, notAfter, subject } = slots
  const san = slots.san ?? undefined
  let faults: readonly string[]
  try {
    const names = attributesOf(subject)
    faults = brokenSlots({ serial, notBefore, notAfter, names, san }, { profile, issuer })
  } catch (error) {
    faults = unreadable(error)
  }
  demand(faults)
}

function attributesOf(name: Uint8Array): readonly Attribute[] {
  const rdns = readName(name)
  // `flat` costs more than the rest of the reading, and there is hardly ever a second one.
  return rdns.length === 1 ? (rdns[0] ?? []) : rdns.flat()
}

function broken(list: readonly Rule[], of: Subject): readonly string[] {
  const names: string[] = []
  for (const [name, holds] of list) if (!holds(of)) names.push(name)
  return names
}

function demand(names: readonly string[]): void {
  if (names.length > 0) throw new CaError('lint', 'local', `not signed: ${names.join('; ')}`)
}

/** What cannot even be read breaks the first clause of all. */
function reading(read: () => readonly string[]): readonly string[] {
  try {
    return read()
  } catch (error) {
    return unreadable(error)
  }
}

function unreadable(error: unknown): readonly string[] {
  if (error instanceof DerError) return [`RFC 5280 4.1: ${error.message}`]
  throw error
}

const SECOND_MS = 1_000
const DAY_MS = 86_400_000

/** Well-formed and nobody's: a template is linted with it before it has issued anything. */
const SAMPLE = {
  serial: new Uint8Array(16).fill(0x55),
  notBefore: instant(Date.UTC(2026, 0, 1)),
  subject: writeName([{ type: 'commonName', text: 'sample' }]),
  spki: sequence(sequence(oid(OID.ed25519)), bitString(new Uint8Array(32).fill(0x55))),
  san: writeGeneralNames([{ kind: 'uri', text: 'sallyport://sample.invalid/device/sample' }]),
}
