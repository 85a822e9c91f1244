/** A maker of devices: a root, an intermediate, and the identities it puts into what it makes. */
import type { KeyObject } from 'node:crypto'
import { softwareSigner, type Signer } from '#ca'
import { keyIdentifier, signingIdentifier } from '../../ca/algorithm.ts'
import { writeName, type NameValue } from '../../ca/der/name.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import {
  bitString,
  boolean,
  context,
  contextPrimitive,
  namedBits,
  octetString,
  sequence,
  smallInteger,
  time,
  unsignedInteger,
} from '../../ca/der/writer.ts'
import { spkiOf } from './requests.ts'
import { newKey, NOON, random } from './support.ts'

/** 9999-12-31T23:59:59Z, as IEEE 802.1AR has it. */
const FOREVER = Date.UTC(9999, 11, 31, 23, 59, 59)

export interface Party {
  readonly key: KeyObject
  readonly name: Uint8Array
  readonly certificate: Uint8Array
}
export interface Made {
  readonly names: readonly NameValue[]
  readonly key?: KeyObject
  /** Absent: it signs itself. */
  readonly by?: Pick<Party, 'key' | 'name'>
  readonly ca?: { readonly pathLength: number | null }
  readonly usage?: readonly number[]
  readonly purposes?: readonly string[]
  readonly notBefore?: number
  readonly notAfter?: number
  readonly extensions?: readonly Uint8Array[]
  /** Stands in for the algorithm that signed. */
  readonly algorithm?: Uint8Array
}

export function extension(name: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(oid(name), ...(critical ? [boolean(true)] : []), octetString(value))
}

export function make(recipe: Made): Party {
  const key = recipe.key ?? newKey()
  const name = writeName(recipe.names)
  const by = recipe.by ?? { key, name }
  const signer: Signer = softwareSigner(by.key)
  const spki = spkiOf(key)
  const length = recipe.ca?.pathLength ?? null
  const constraints = sequence(boolean(true), ...(length === null ? [] : [smallInteger(length)]))
  const authority = sequence(contextPrimitive(0, keyIdentifier(spkiOf(by.key))))
  const purposes = recipe.purposes?.map((purpose) => oid(purpose))
  const algorithm = recipe.algorithm ?? signingIdentifier[signer.algorithm]
  const tbs = sequence(
    context(0, smallInteger(2)),
    unsignedInteger(random(16)),
    algorithm,
    by.name,
    sequence(time(recipe.notBefore ?? NOON - 86_400_000), time(recipe.notAfter ?? FOREVER)),
    name,
    spki,
    context(
      3,
      sequence(
        ...(recipe.ca === undefined ? [] : [extension(OID.basicConstraints, true, constraints)]),
        extension(OID.keyUsage, true, namedBits(...(recipe.usage ?? (recipe.ca ? [5, 6] : [0])))),
        ...(purposes === undefined
          ? []
          : [extension(OID.extendedKeyUsage, false, sequence(...purposes))]),
        extension(OID.subjectKeyIdentifier, false, octetString(keyIdentifier(spki))),
        extension(OID.authorityKeyIdentifier, false, authority),
        ...(recipe.extensions ?? []),
      ),
    ),
  )
  const signature = signer.sign(tbs) as Uint8Array
  return { key, name, certificate: sequence(tbs, algorithm, bitString(signature)) }
}

export const named = (common: string, serialNumber?: string): NameValue[] => [
  { type: 'commonName', text: common },
  ...(serialNumber === undefined ? [] : [{ type: 'serialNumber' as const, text: serialNumber }]),
]

export interface Maker {
  readonly root: Party
  readonly middle: Party
}
export function newMaker(pathLength: number | null = 1): Maker {
  const root = make({ names: named('Acme root'), ca: { pathLength } })
  const middle = make({ names: named('Acme plant 3'), by: root, ca: { pathLength: 0 } })
  return { root, middle }
}
