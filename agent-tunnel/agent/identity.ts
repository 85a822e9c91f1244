/**
 * The device's key pairs on disk: two slots, so that the old pair stays until the new one has
 * connected. A key is on disk, 0600 and fsynced, before anybody is asked to certify it; whatever
 * moment the power goes, what remains is no pair, a key to go on with, or a whole pair.
 */
import {
  X509Certificate,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { SecureContextOptions } from 'node:tls'
import type { RemoteKey, RequestKey } from '#est'
import { AgentError, messageOf } from './errors.ts'
import { makeDirectory, readIfPresent, writeDurably } from './files.ts'
import { readRecord } from './json.ts'
import type { Anchors } from './trust.ts'

export type Slot = 'a' | 'b'
const SLOTS: readonly Slot[] = ['a', 'b']

/** What node:tls proves itself with. */
export type TlsKey = Pick<SecureContextOptions, 'key' | 'privateKeyEngine' | 'privateKeyIdentifier'>

/** A key that stays in a token: the same one for every certificate. */
export interface TokenKey extends RemoteKey {
  readonly tls: TlsKey
}

/** A key with its certificate. Dates are epoch ms. */
export interface Pair {
  readonly slot: Slot
  /** Private where it is in a file; the public one of a key in a token. */
  readonly key: KeyObject
  readonly tls: TlsKey
  /** Leaf first, then the issuing CAs under the root. */
  readonly chainPem: string
  readonly leaf: X509Certificate
  readonly notBefore: number
  readonly notAfter: number
}

/** A key on disk that waits for its certificate. */
export interface Prepared {
  readonly slot: Slot
  /** As that of a pair. */
  readonly key: KeyObject
  /** What signs the request. */
  readonly signer: RequestKey
}

/** Two rollovers of root and issuing CA at once are eight. */
const MOST_AUTHORITIES = 16

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

function pemOf(der: Uint8Array): string {
  return new X509Certificate(Buffer.from(der)).toString()
}

export class Identity {
  readonly #dataDir: string
  readonly #token: TokenKey | undefined

  /**
   * Opens the identity in `dataDir`, making its directories; with `token` its keys are that one. Throws AgentError
   * `data.unwritable`.
   */
  constructor(dataDir: string, token?: TokenKey) {
    this.#dataDir = dataDir
    this.#token = token
    for (const slot of SLOTS) makeDirectory(this.#path(slot))
  }

  #path(slot: Slot, file = ''): string {
    return join(this.#dataDir, 'identity', slot, file)
  }

  /**
   * The whole pairs, the one to dial with first: the newest. The other one, if any, is the fallback.
   * Throws AgentError `identity.broken` when a key may be read by others.
   */
  pairs(): Pair[] {
    return SLOTS.map((slot) => this.#read(slot))
      .filter((pair) => pair !== undefined)
      .toSorted((a, b) => b.notBefore - a.notBefore || b.notAfter - a.notAfter)
  }

  #read(slot: Slot): Pair | undefined {
    const own = this.#own(slot)
    const chainPem = readIfPresent(this.#path(slot, 'chain.pem'))
    const [leafPem] = chainPem?.match(CERTIFICATE) ?? []
    if (own === undefined || chainPem === undefined || leafPem === undefined) return undefined
    try {
      const leaf = new X509Certificate(leafPem)
      if (!leaf.publicKey.equals(own.publicKey)) return undefined
      const [notBefore, notAfter] = [leaf.validFromDate.getTime(), leaf.validToDate.getTime()]
      return { slot, key: own.key, tls: own.tls, chainPem, leaf, notBefore, notAfter }
    } catch {
      return undefined
    }
  }

  /** The key of a slot, with what it proves itself by. */
  #own(slot: Slot): (Pick<Pair, 'key' | 'tls'> & Pick<TokenKey, 'publicKey'>) | undefined {
    if (this.#token !== undefined) {
      const { publicKey, tls } = this.#token
      return { key: publicKey, publicKey, tls }
    }
    const key = this.#readKey(slot)
    if (key === undefined) return undefined
    const pem = key.export({ type: 'pkcs8', format: 'pem' }).toString()
    return { key, publicKey: createPublicKey(key), tls: { key: pem } }
  }

  #readKey(slot: Slot): KeyObject | undefined {
    const path = this.#path(slot, 'key.pem')
    const pem = readIfPresent(path)
    if (pem === undefined) return undefined
    if ((statSync(path).mode & 0o077) !== 0) {
      throw new AgentError(
        'identity.broken',
        `The device key ${path} may be read by other users.`,
        'If nobody can have copied it: chmod 600. Else revoke the device and enrol it again.',
      )
    }
    try {
      return createPrivateKey(pem)
    } catch {
      return undefined
    }
  }

  /**
   * The slot that a new certificate goes to: never the pair that has connected, and not the newest one
   * while there is none that has.
   */
  #spare(): Slot {
    const pairs = this.pairs()
    const keep = pairs.find((pair) => pair.slot === this.connected) ?? pairs[0]
    return keep?.slot === 'a' ? 'b' : 'a'
  }

  /**
   * A P-256 key on disk in the spare slot. A key already there without a certificate is used again:
   * the request for it may have been answered just before the power went.
   */
  prepare(): Prepared {
    const slot = this.#spare()
    if (this.#token !== undefined) return inToken(slot, this.#token)
    const waiting = this.#readKey(slot)
    if (waiting !== undefined && this.#read(slot) === undefined) return inFile(slot, waiting)
    return this.#make(slot)
  }

  #make(slot: Slot): Prepared {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    this.#writeKey(slot, privateKey)
    return inFile(slot, privateKey)
  }

  /**
   * Another key in the place of one that nobody will certify, and that certifies nothing here. Throws AgentError
   * `identity.token` where it is in a token: there its owner makes them.
   */
  prepareInstead({ slot }: Prepared): Prepared {
    if (this.#token === undefined) return this.#make(slot)
    throw new AgentError(
      'identity.token',
      'The gateway knows the key in the token as compromised and certifies it no more.',
      'Make another key in the token, name it in pkcs11.uri of agent.json, and enrol again.',
    )
  }

  /** The key of `pair` in the spare slot too: a renewal after the end must keep its key (ca.md). */
  prepareSameKey(pair: Pair): Prepared {
    const slot = this.#spare()
    if (this.#token !== undefined) return inToken(slot, this.#token)
    if (slot !== pair.slot) this.#writeKey(slot, pair.key)
    return inFile(slot, pair.key)
  }

  #writeKey(slot: Slot, key: KeyObject): void {
    // Key first: a chain without its key is nothing, a key without its chain would be used again.
    rmSync(this.#path(slot, 'key.pem'), { force: true })
    rmSync(this.#path(slot, 'chain.pem'), { force: true })
    writeDurably(this.#path(slot, 'key.pem'), key.export({ type: 'pkcs8', format: 'pem' }), 0o600)
  }

  /** Puts an issued chain (DER, leaf first) beside its key, durably, and gives the pair. */
  store(prepared: Prepared, chain: readonly Uint8Array[]): Pair {
    writeDurably(this.#path(prepared.slot, 'chain.pem'), chain.map(pemOf).join(''))
    const pair = this.#read(prepared.slot)
    if (pair !== undefined) return pair
    throw new AgentError(
      'identity.broken',
      'The certificate that was issued does not belong to the key of this device.',
      'Run the same command again; if that repeats, report it with the log of both sides.',
    )
  }

  /** The slot whose pair connected last. */
  get connected(): Slot | undefined {
    const text = readIfPresent(join(this.#dataDir, 'identity', 'connected'))?.trim()
    return SLOTS.find((slot) => slot === text)
  }

  /** Remembers that the gateway took this pair; from now on the other slot is free. */
  markConnected(slot: Slot): void {
    if (this.connected !== slot)
      writeDurably(join(this.#dataDir, 'identity', 'connected'), `${slot}\n`)
  }

  /**
   * Notes, durably and before it is used, which token certifies the key of `slot`. Only its hash: a spent
   * token is no secret, an unspent one is.
   */
  noteToken(token: string, slot: Slot): void {
    const note = { token_sha256: sha256Of(token), slot }
    writeDurably(join(this.#dataDir, 'identity', 'token.json'), `${JSON.stringify(note)}\n`, 0o600)
  }

  /** The whole pair that this very token got, if there is one: the same command was run again. */
  gotBy(token: string): Pair | undefined {
    const text = readIfPresent(join(this.#dataDir, 'identity', 'token.json'))
    const note = readRecord(Buffer.from(text ?? ''))
    if (note?.['token_sha256'] !== sha256Of(token)) return undefined
    return this.pairs().find((pair) => pair.slot === note['slot'])
  }

  /**
   * Keeps the pinned root and the authorities under it, all DER, before those that were there: whichever
   * pin agent.json names after a power cut, its root is still in the file.
   */
  storeAnchors(root: Uint8Array, authorities: readonly Uint8Array[]): Anchors {
    const path = join(this.#dataDir, 'ca.pem')
    const before = readIfPresent(path)
    const all = [...[root, ...authorities].map(pemOf), ...(before?.match(CERTIFICATE) ?? [])]
    const kept = [...new Set(all.map((one) => `${one.trim()}\n`))].slice(0, MOST_AUTHORITIES)
    const pem = kept.join('')
    if (before !== pem) writeDurably(path, pem)
    return anchorsFrom(pem)
  }

  /** The root and authorities kept, checked against `pin` (SHA-256, hex); undefined before enrolment. */
  anchors(pin: string): Anchors | undefined {
    const pem = readIfPresent(join(this.#dataDir, 'ca.pem'))
    if (pem === undefined) return undefined
    try {
      const anchors = anchorsFrom(pem, pin)
      if (anchors !== undefined) return anchors
    } catch (error) {
      throw pinError(`could not be read: ${messageOf(error)}`)
    }
    throw pinError('is not the root that agent.json names in ca_sha256')
  }
}

function inFile(slot: Slot, key: KeyObject): Prepared {
  return { slot, key, signer: key }
}

function inToken(slot: Slot, token: TokenKey): Prepared {
  return { slot, key: token.publicKey, signer: token }
}

function sha256Of(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function pinError(says: string): AgentError {
  return new AgentError(
    'gateway.pin',
    `The root certificate in ca.pem ${says}.`,
    'Enrol again with the --ca-sha256 that the gateway shows.',
  )
}

/** With the root that `pin` names, or the first. Undefined where none has that pin. */
function anchorsFrom(pem: string): Anchors
function anchorsFrom(pem: string, pin: string): Anchors | undefined
function anchorsFrom(pem: string, pin?: string): Anchors | undefined {
  const all = (pem.match(CERTIFICATE) ?? []).map((one) => new X509Certificate(one))
  if (all[0] === undefined) throw new Error('it holds no certificate')
  const root = pin === undefined ? all[0] : all.find((one) => fingerprintOf(one) === pin)
  return root === undefined ? undefined : { root, authorities: all.filter((one) => one !== root) }
}

function fingerprintOf({ fingerprint256 }: X509Certificate): string {
  return fingerprint256.replaceAll(':', '').toLowerCase()
}
