/** PKCS#10 requests that are wrong in exactly one way, signed by a real key. */
import { createPublicKey, sign, type KeyObject } from 'node:crypto'
import {
  writeGeneralNames,
  writeName,
  type GeneralName,
  type NameValue,
} from '../../ca/der/name.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { TAG } from '../../ca/der/reader.ts'
import {
  bitString,
  context,
  octetString,
  sequence,
  smallInteger,
  tlv,
  utf8String,
} from '../../ca/der/writer.ts'
import { newKey } from './support.ts'

export function spkiOf(key: KeyObject): Uint8Array {
  return new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
}

export function attribute(type: string, ...values: readonly Uint8Array[]): Uint8Array {
  return sequence(oid(type), tlv(TAG.set, ...values))
}
export function san(...names: readonly GeneralName[]): Uint8Array {
  const extension = sequence(oid(OID.subjectAltName), octetString(writeGeneralNames(names)))
  return attribute(OID.extensionRequest, sequence(extension))
}
export function deviceSan(id: string, tenant = 'main.sallyport.internal'): Uint8Array {
  return san({ kind: 'uri', text: `sallyport://${tenant}/device/${id}` })
}
export function challenge(text: string): Uint8Array {
  return attribute(OID.challengePassword, utf8String(text))
}
export function subject(...values: readonly NameValue[]): Uint8Array {
  return writeName(values)
}
export const named = (text: string): Uint8Array => subject({ type: 'commonName', text })

export interface Recipe {
  readonly key?: KeyObject
  readonly version?: Uint8Array
  readonly subject?: Uint8Array
  readonly spki?: Uint8Array
  /** Null leaves the field out. */
  readonly attributes?: readonly Uint8Array[] | null
  readonly algorithm?: Uint8Array
  readonly hash?: string | null
  /** Changes the signature after it was made. */
  readonly spoil?: (signature: Uint8Array) => Uint8Array
  readonly extra?: readonly Uint8Array[]
}

/** A request of `key`, right except for what the recipe says. */
export function request(recipe: Recipe = {}): Uint8Array {
  const key = recipe.key ?? newKey()
  const { attributes = [] } = recipe
  const info = sequence(
    recipe.version ?? smallInteger(0),
    recipe.subject ?? named('press-07'),
    recipe.spki ?? spkiOf(key),
    ...(attributes === null ? [] : [context(0, ...attributes)]),
    ...(recipe.extra ?? []),
  )
  const { hash = 'sha256' } = recipe
  const signature = new Uint8Array(sign(hash, info, key))
  const algorithm = recipe.algorithm ?? sequence(oid(OID.ecdsaSha256))
  return sequence(info, algorithm, bitString(recipe.spoil?.(signature) ?? signature))
}
