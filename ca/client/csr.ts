/** PKCS#10 requests of a device (RFC 2986), signed by its own key. */
import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import { findExtension, readCertificate } from '../der/certificate.ts'
import { writeGeneralNames, writeName } from '../der/name.ts'
import { oid, OID } from '../der/oid.ts'
import { DerError, TAG } from '../der/reader.ts'
import { isPrintable } from '../der/text.ts'
import {
  bitString,
  octetString,
  sequence,
  setOf,
  smallInteger,
  tlv,
  utf8String,
} from '../der/writer.ts'
import { EstError } from './errors.ts'

export interface DeviceNames {
  readonly deviceId: string
  readonly tenant: string
  /** X520 serialNumber, only if the device record has one. */
  readonly serialNumber?: string
}

/** A private key that is used where it is, as in a token. */
export interface RemoteKey {
  readonly publicKey: KeyObject
  /** The signature in the form that X.509 wants (ECDSA: DER) over `data`; `hash` as of node:crypto, null for Ed25519. */
  readonly sign: (hash: string | null, data: Uint8Array) => Uint8Array
}

/** What signs a request. */
export type RequestKey = KeyObject | RemoteKey

const DEVICE_ID = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/
const TENANT = /^(?=.{1,200}$)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+$/
/** PKCS#9 5.4.1: the upper bound of challengePassword. */
const LONGEST_CHALLENGE = 255

/**
 * A CSR (DER) with CN = device id and the URI SAN. Key: P-256, P-384, Ed25519 or RSA.
 * `challengePassword`: base64 of the connection's channel binding, at most 255 characters.
 * Throws EstError `csr.names` if the names could not be certified.
 */
export function createCsr(
  key: RequestKey,
  names: DeviceNames,
  challengePassword?: string,
): Uint8Array {
  const { deviceId, tenant, serialNumber } = names
  const serialFits = serialNumber === undefined || isPrintable(serialNumber)
  if (!DEVICE_ID.test(deviceId) || deviceId.includes('--') || !TENANT.test(tenant) || !serialFits)
    throw new EstError('csr.names', 'the device id, tenant or serial number cannot be certified')
  const subject = writeName([
    { type: 'commonName', text: deviceId },
    ...(serialNumber === undefined ? [] : [{ type: 'serialNumber' as const, text: serialNumber }]),
  ])
  const uri = `sallyport://${tenant}/device/${deviceId}`
  return build(key, subject, writeGeneralNames([{ kind: 'uri', text: uri }]), challengePassword)
}

/** A request for any EST server: only what is given here is in it. */
export interface PlainNames {
  readonly commonName?: string
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
}

/**
 * A CSR (DER) with these names, for servers that are not ours. Key and `challengePassword` as for
 * `createCsr`. Throws EstError `csr.names` for names that X.509 cannot hold.
 */
export function createPlainCsr(
  key: RequestKey,
  { commonName, uris, dnsNames }: PlainNames,
  challengePassword?: string,
): Uint8Array {
  const subject =
    commonName === undefined ? [] : [{ type: 'commonName' as const, text: commonName }]
  const names = [
    ...uris.map((text) => ({ kind: 'uri' as const, text })),
    ...dnsNames.map((text) => ({ kind: 'dns' as const, text })),
  ]
  if ((commonName?.length ?? 0) > 64)
    throw new EstError('csr.names', 'a common name has at most 64 characters')
  try {
    const san = names.length === 0 ? null : writeGeneralNames(names)
    return build(key, writeName(subject), san, challengePassword)
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw new EstError('csr.names', `a name cannot be written: ${cause.message}`, { cause })
  }
}

/**
 * The same with subject and SAN copied from `certificate` (DER), as a renewal must (RFC 7030 4.2.2).
 * Throws EstError `csr.names` if it is no certificate or has no SAN.
 */
export function createRenewalCsr(
  key: RequestKey,
  certificate: Uint8Array,
  challengePassword?: string,
): Uint8Array {
  const old = parse(certificate)
  const san = findExtension(old.extensions, 'subjectAltName')
  if (san === undefined) throw new EstError('csr.names', 'the certificate to renew has no SAN')
  return build(key, old.subject, san.value, challengePassword)
}

function parse(certificate: Uint8Array) {
  try {
    return readCertificate(certificate)
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw new EstError('csr.names', `the certificate to renew cannot be read: ${cause.message}`, {
      cause,
    })
  }
}

function build(
  key: RequestKey,
  subject: Uint8Array,
  san: Uint8Array | null,
  challenge: string | undefined,
): Uint8Array {
  const { publicKey, sign: signed } = 'publicKey' in key ? key : here(key)
  const { algorithm, hash } = signatureOf(publicKey)
  const attributes: Uint8Array[] = []
  if (san !== null) {
    const extension = sequence(oid(OID.subjectAltName), octetString(san))
    attributes.push(attribute(OID.extensionRequest, sequence(extension)))
  }
  if (challenge !== undefined) {
    if (challenge.length > LONGEST_CHALLENGE)
      throw new EstError('csr.names', 'the channel binding is longer than challengePassword holds')
    attributes.push(attribute(OID.challengePassword, utf8String(challenge)))
  }
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  // SET OF under an implicit tag: sorted like setOf, then retagged.
  const list = setOf(...attributes)
  list[0] = 0xa0
  const info = sequence(smallInteger(0), subject, spki, list)
  return sequence(info, algorithm, bitString(signed(hash, info)))
}

function here(key: KeyObject): RemoteKey {
  return {
    publicKey: createPublicKey(key),
    sign: (hash, data) => new Uint8Array(sign(hash, data, key)),
  }
}

function attribute(type: string, value: Uint8Array): Uint8Array {
  return sequence(oid(type), setOf(value))
}

function signatureOf(key: KeyObject): { algorithm: Uint8Array; hash: string | null } {
  const curve = key.asymmetricKeyDetails?.namedCurve
  if (curve === 'prime256v1') return { algorithm: sequence(oid(OID.ecdsaSha256)), hash: 'sha256' }
  if (curve === 'secp384r1') return { algorithm: sequence(oid(OID.ecdsaSha384)), hash: 'sha384' }
  if (key.asymmetricKeyType === 'ed25519')
    return { algorithm: sequence(oid(OID.ed25519)), hash: null }
  if (key.asymmetricKeyType === 'rsa')
    return { algorithm: sequence(oid(OID.rsaSha256), tlv(TAG.null)), hash: 'sha256' }
  throw new EstError('csr.names', 'a device key is P-256, P-384, Ed25519 or RSA')
}
