/** What both processes of `bench -- ca` share: a CA in memory, requests made beforehand, the work on each. */
import { createPublicKey, generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto'
import {
  createAuthority,
  finish,
  instant,
  openIssuers,
  prepare,
  profiles,
  record,
  softwareSigner,
  type IssueRequest,
  type Issuers,
  type IssuingDesk,
  type Random,
} from '#ca'
import { createCsr, encodeEstBody } from '#est'
import type { ImportedKey } from '../ca/algorithm.ts'
import { possess, readApplicant } from '../ca/applicant.ts'
import { encodeBody } from '../ca/der/base64.ts'
import { writeCertsOnly } from '../ca/der/cms.ts'
import { assemble, signOver } from '../ca/issue.ts'
import { sanOf, subjectFor } from '../ca/name.ts'

export const TENANT = 'main.sallyport.internal'
export const random: Random = (bytes) => randomBytes(bytes)

export interface House {
  readonly issuers: Issuers
  /** The issuing CA's key, P-256. */
  readonly key: KeyObject
  /** DER. */
  readonly root: Uint8Array
  readonly issuing: Uint8Array
}

export async function newHouse(): Promise<House> {
  const key = newKey()
  const issuing = softwareSigner(key)
  const root = softwareSigner(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey)
  const now = instant(Date.now())
  const made = await createAuthority({ tenant: TENANT, root, issuing, now, random })
  const active = { certificate: made.issuing, signer: issuing }
  const issuers = openIssuers({ roots: [made.root], active })
  return { issuers, key, root: made.root, issuing: made.issuing }
}

export function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

/** A body as a client posts it: base64 of a request by a new P-256 key. */
export function newBody(device: string): Uint8Array {
  return Buffer.from(encodeEstBody(createCsr(newKey(), { deviceId: device, tenant: TENANT })))
}

/** The bytes to sign for a device: names, dates, serial, template, lint. */
export function prepared(device: string, key: ImportedKey, { issuers }: House): Uint8Array {
  const now = instant(Date.now())
  return prepare(profiles.device, requestFor(device, key), issuers.active, now, random).redeem().tbs
}

/** Prepared, signed, put together; nothing else. */
export function issued(device: string, key: ImportedKey, house: House): Uint8Array {
  const { algorithm } = house.issuers.active.signer
  const tbs = prepared(device, key, house)
  return assemble(tbs, algorithm, signed(tbs, house))
}

/** A key in memory signs on the spot. */
function signed(tbs: Uint8Array, { issuers }: House): Uint8Array {
  const signature = issuers.active.signer.sign(tbs)
  if (signature instanceof Promise) throw new Error('this signer takes its time')
  return signature
}

/** Base64 to base64: decoded, read, the request's signature verified, issued, wrapped, encoded. */
export function answered(device: string, body: Uint8Array, house: House): string {
  const applicant = readApplicant(body)
  possess(applicant, null, 'optional')
  return encodeBody(writeCertsOnly([issued(device, applicant.key, house)]))
}

/** The same with the check of our own signature, as the server does it. */
export async function served(device: string, body: Uint8Array, house: House): Promise<string> {
  const applicant = readApplicant(body)
  possess(applicant, null, 'optional')
  const tbs = prepared(device, applicant.key, house)
  return encodeBody(writeCertsOnly([await signOver(tbs, house.issuers.active.signer)]))
}

export function spkiOf(key: KeyObject): Uint8Array {
  return new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
}

/** A certificate of a device, recorded like any other. */
export async function signedFor(
  device: string,
  key: KeyObject,
  { issuers }: House,
  desk: IssuingDesk,
): Promise<Uint8Array> {
  const now = instant(Date.now())
  const draft = prepare(
    profiles.device,
    requestFor(device, spkiOf(key)),
    issuers.active,
    now,
    random,
  )
  const recorded = await record(draft, desk.store)
  return (await finish(recorded, issuers, desk, { now, remoteAddress: null })).certificate
}

function requestFor(device: string, spki: Uint8Array | ImportedKey): IssueRequest {
  return {
    tenant: TENANT,
    subject: device,
    name: subjectFor(device),
    san: sanOf(TENANT, 'device', device),
    spki,
    recall: null,
    parent: null,
    tokenId: null,
    decisionId: null,
    requestId: null,
  }
}
