/** An issuing CA of another root: a request to a CA above, and its answer, or a chain with its key. */
import { createHash, createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { brokenAdoptionRules, encodePem, instant, requestIssuing, type Candidate } from '#ca'
import type { Rotated } from './acts.ts'
import { KeyError } from './errors.ts'
import { replaceFile } from './file.ts'
import {
  act,
  alone,
  dateOf,
  entry,
  keyIdOf,
  labelFor,
  nameFor,
  newIssuingKey,
  readDer,
  spkiOf,
  writeCertificate,
  type CaRoom,
} from './room.ts'
import { openKeyFile, publicKeyOf, writeKeyFile } from './sealed.ts'
import type { CaState, KeyPlace } from './state.ts'

/** A key here and a PKCS#10 (PEM) for a CA above us; asked again, the same request. Throws KeyError. */
export async function requestSubordinate(room: CaRoom): Promise<string> {
  return await alone(room, async (state) => {
    if (state.requested !== null) {
      const csr = readFileSync(join(room.directory, state.requested.csr), 'utf8')
      return { state, acts: [], value: csr }
    }
    const made = newIssuingKey(room, labelFor(room, state))
    room.step('issuing key')
    const csr = encodePem('CERTIFICATE REQUEST', await requestIssuing(room.tenant, made.signer))
    const name = `${nameFor('request', made.signer.publicKey)}.csr`
    replaceFile(join(room.directory, name), csr, 0o644)
    room.step('request')
    const told = act(room, {
      operation: 'ca:request',
      verb: 'create',
      entity: name,
      message: 'a certificate for an issuing CA was asked of a CA above',
    })
    const requested = { key: made.place, csr: name, since: room.now() }
    return { state: { ...state, requested }, acts: [told], value: csr }
  })
}

export interface ImportOptions {
  /** PEM: the issuing CA first, its root last. */
  readonly chain: string
  /** PEM of its key; without one, the key that the request was made for, or the token's. */
  readonly key?: { readonly pem: string; readonly passphrase?: string | undefined } | undefined
  readonly pkcs11Label?: string | undefined
  readonly now?: boolean | undefined
}

export interface Imported extends Rotated {
  /** SHA-256 of its root, hex, where devices have pinned another one that does not vouch for it; else null. */
  readonly strangeRoot: string | null
}

/**
 * Brings an issuing CA of another root: at once where there is none yet, else after a device
 * lifetime. Throws KeyError `ca.refused` naming every rule that the chain breaks (ca/adopt.ts).
 */
export async function importIssuing(room: CaRoom, options: ImportOptions): Promise<Imported> {
  const chain = certificatesIn(options.chain)
  if (chain.length < 2)
    throw new KeyError(
      'ca.refused',
      `the chain holds ${chain.length} certificates, at least two are needed`,
      {
        next: 'give one PEM file: the issuing CA first, what is between, its root last',
      },
    )
  return await alone(room, async (state) => {
    const key = importedKey(room, state, options)
    const known = [...state.issuers, ...state.roots].map(({ certificate }) =>
      readDer(room, certificate),
    )
    assertUsable(room, { chain, publicKey: key.publicKey, known })
    const [issuing, ...rest] = chain
    const root = rest.pop()
    if (issuing === undefined || root === undefined)
      throw new KeyError('ca.refused', 'the chain is too short')
    const place = key.keep()
    room.step('issuing key')
    const above = rest.map((der) => store(room, 'above', der))
    const name = store(room, 'issuing', issuing)
    const rootName = state.roots.find(({ certificate }) =>
      same(readDer(room, certificate), root),
    )?.certificate
    const top = rootName ?? store(room, 'root', root)
    room.step('issuing certificate')
    const first = state.issuers.length === 0
    const since = room.now()
    const activeFrom = first || options.now === true ? since : since + room.deviceLifetimeMs
    const foreign = { certificate: top, key: { kind: 'foreign' as const }, since }
    const next: CaState = {
      ...state,
      roots: rootName === undefined ? [...state.roots, foreign] : state.roots,
      issuers: [
        ...state.issuers,
        entry(name, above, place, first ? 'active' : 'next', since, first ? null : activeFrom),
      ],
      requested: key.requested ? null : state.requested,
    }
    const message = `issuing CA of another root imported, signing from ${dateOf(activeFrom)}`
    const told = act(room, {
      operation: 'ca:import',
      verb: 'create',
      entity: keyIdOf(issuing),
      message,
    })
    return await Promise.resolve({
      state: next,
      acts: [told],
      value: {
        activeFrom,
        certificate: name,
        strangeRoot: first || rootName !== undefined ? null : sha256(root),
      },
    })
  })
}

const sha256 = (der: Uint8Array): string => createHash('sha256').update(der).digest('hex')

/** Throws KeyError `ca.refused` with every broken rule, or with the one thing to do: to turn the file round. */
function assertUsable(room: CaRoom, given: Pick<Candidate, 'chain' | 'publicKey' | 'known'>): void {
  const candidate = { ...given, names: room.names, now: instant(room.now()) }
  const broken = brokenAdoptionRules(candidate)
  if (broken.length === 0) return
  const turned = { ...candidate, chain: given.chain.toReversed() }
  if (brokenAdoptionRules(turned).length === 0)
    throw new KeyError('ca.refused', 'this chain begins with its root', {
      next: 'turn the file round: the issuing CA first, what is between, its root last',
    })
  const [issuing] = given.chain
  const otherKey = issuing !== undefined && !same(spkiOf(issuing), given.publicKey)
  throw new KeyError('ca.refused', `this chain cannot issue here; not so: ${broken.join('; ')}`, {
    next:
      otherKey && broken.length === 1
        ? 'bring the key of that certificate; openssl pkey -in KEY -pubout and openssl x509 -in CHAIN -noout -pubkey say the same of a pair'
        : 'have the CA above make a certificate that is so; docs/keys.md has the rules',
  })
}

function store(room: CaRoom, kind: 'above' | 'issuing' | 'root', der: Uint8Array): string {
  const name = `${nameFor(kind, der)}.crt`
  writeCertificate(room, name, der)
  return name
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.from(a).equals(b)

interface ImportedKey {
  readonly publicKey: Uint8Array
  readonly requested: boolean
  /** Puts it where it stays. */
  readonly keep: () => KeyPlace
}

function importedKey(room: CaRoom, state: CaState, options: ImportOptions): ImportedKey {
  const { key, pkcs11Label: label } = options
  if (label !== undefined) {
    if (room.token === null) throw new KeyError('hsm.key', 'ca.pkcs11 is not configured')
    return {
      publicKey: room.token.publicKey(label),
      requested: false,
      keep: () => ({ kind: 'pkcs11', label }),
    }
  }
  if (key !== undefined) {
    const opened = foreignKey(key)
    const publicKey = publicKeyOf(opened)
    const file = `${nameFor('issuing', publicKey)}.key.pem`
    return {
      publicKey,
      requested: false,
      keep: () => {
        rmSync(join(room.directory, file), { force: true })
        writeKeyFile(join(room.directory, file), opened, room.passphrase)
        return { kind: 'file', file }
      },
    }
  }
  const place = state.requested?.key
  if (place?.kind === 'file') {
    const publicKey = publicKeyOf(openKeyFile(join(room.directory, place.file), room.passphrase))
    return { publicKey, requested: true, keep: () => place }
  }
  if (place?.kind === 'pkcs11' && room.token !== null)
    return { publicKey: room.token.publicKey(place.label), requested: true, keep: () => place }
  throw new KeyError('ca.absent', 'no request was made here, so no key waits for this chain', {
    next: 'give the key with --key FILE or --pkcs11 LABEL',
  })
}

function foreignKey({
  pem,
  passphrase,
}: {
  pem: string
  passphrase?: string | undefined
}): KeyObject {
  try {
    return createPrivateKey({
      key: pem,
      format: 'pem',
      ...(passphrase === undefined ? {} : { passphrase }),
    })
  } catch (cause) {
    throw passphrase === undefined
      ? new KeyError('key.unreadable', 'the key cannot be read', {
          cause,
          next: 'give a private key in PEM; if it is sealed, --key-passphrase-file FILE as well',
        })
      : new KeyError('key.passphrase', 'the passphrase does not open the key', {
          cause,
          next: 'try it: openssl pkey -in KEY -noout -passin file:FILE',
        })
  }
}

const ONE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g

function certificatesIn(pem: string): Uint8Array[] {
  try {
    return (pem.match(ONE) ?? []).map((each) => new Uint8Array(new X509Certificate(each).raw))
  } catch (cause) {
    throw new KeyError('ca.refused', 'a certificate of the chain cannot be read', { cause })
  }
}
