/** What an operator does to the CA: make it, take its root away, replace its issuing CA, bring another. */
import { createHash, createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import {
  brokenAdoptionRules,
  createIssuing,
  createRoot,
  crossCertify,
  encodePem,
  instant,
  profiles,
  requestIssuing,
  softwareSigner,
  type RootAtHand,
} from '#ca'
import { KeyError } from './errors.ts'
import { generateKey, replaceFile, syncDirectory } from './file.ts'
import type { Passphrase } from './passphrase.ts'
import {
  act,
  alone,
  nameFor,
  newIssuingKey,
  random,
  readDer,
  writeCertificate,
  type CaRoom,
} from './room.ts'
import { openKeyFile, publicKeyOf, sealPlainKey, verifyKeyFile, writeKeyFile } from './sealed.ts'
import type { Act, CaState, IssuingEntry, KeyPlace } from './state.ts'

/** A root key that was exported, brought back for one act. */
export interface RootKeyFile {
  readonly file: string
  readonly passphrase: string
}

const FIRST = {
  rootKey: 'root.key.pem',
  root: 'root.crt',
  issuingKey: 'issuing.key.pem',
  issuing: 'issuing.crt',
} as const

/**
 * Makes root and issuing CA, or finishes making them. Does nothing where there is a CA. Takes over
 * the files of a version without state, and seals their keys. Throws KeyError, CaError.
 */
export async function initCa(room: CaRoom): Promise<void> {
  await alone(room, async (state, known) => {
    if (known) return { state, acts: [], value: undefined }
    const at = (name: string) => join(room.directory, name)
    const acts: Act[] = []
    for (const name of [FIRST.rootKey, FIRST.issuingKey])
      if (sealPlainKey(at(name), room.passphrase))
        acts.push(
          act(room, {
            operation: 'ca:seal',
            verb: 'update',
            entity: name,
            message: `${name} lay open and is sealed now`,
          }),
        )
    const resumed = existsSync(at(FIRST.rootKey)) && !existsSync(at(FIRST.issuing))
    const signer = softwareSigner(rootKeyOf(room))
    room.step('root key')
    const issuing = newIssuingKey(room, labelFor(room, state), FIRST.issuingKey)
    room.step('issuing key')
    const occasion = { tenant: room.tenant, now: instant(room.now()), random }
    if (!existsSync(at(FIRST.root)))
      writeCertificate(room, FIRST.root, await createRoot({ ...occasion, signer }))
    room.step('root certificate')
    const root = { certificate: readDer(room, FIRST.root), signer }
    if (!existsSync(at(FIRST.issuing)))
      writeCertificate(
        room,
        FIRST.issuing,
        await createIssuing({ ...occasion, root, signer: issuing.signer }),
      )
    room.step('issuing certificate')
    const since = room.now()
    const message = resumed
      ? 'root and issuing CA made; an earlier start had ended before it was done, and was gone on with'
      : 'root and issuing CA made'
    acts.push(
      act(room, {
        operation: 'ca:init',
        verb: 'create',
        entity: keyIdOf(readDer(room, FIRST.issuing)),
        message,
      }),
    )
    const made: CaState = {
      ...state,
      roots: [{ certificate: FIRST.root, key: { kind: 'file', file: FIRST.rootKey }, since }],
      issuers: [entry(FIRST.issuing, [], issuing.place, 'active', since, null)],
    }
    return { state: made, acts, value: undefined }
  })
}

/** The first root key, made where it is not. */
function rootKeyOf(room: CaRoom): KeyObject {
  const path = join(room.directory, FIRST.rootKey)
  if (existsSync(path)) return openKeyFile(path, room.passphrase)
  const key = generateKey('p384')
  writeKeyFile(path, key, room.passphrase)
  return key
}

function labelFor(room: CaRoom, state: CaState): string {
  return `${room.tenant} issuing ${state.issuers.length + 1}`
}

function entry(
  certificate: string,
  above: string[],
  key: KeyPlace,
  state: IssuingEntry['state'],
  since: number,
  activeFrom: number | null,
): IssuingEntry {
  return { certificate, above, key, state, since, active_from: activeFrom }
}

function keyIdOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex').slice(0, 16)
}

export interface Exported {
  readonly file: string
  readonly sha256: string
}

/**
 * Writes the root key to `to`, sealed under `passphrase`, opens the copy, and only then takes the
 * key off this node. A file at `to` that holds the same key under it is taken as that copy.
 * Throws KeyError `ca.exported`, `ca.absent`, `ca.exists`, `key.passphrase`.
 */
export async function exportRoot(
  room: CaRoom,
  to: string,
  passphrase: Passphrase,
): Promise<Exported> {
  return await alone(room, async (state) => {
    const at = state.roots.findIndex(({ key }) => key.kind === 'file')
    const root = state.roots[at]
    if (root?.key.kind !== 'file')
      throw new KeyError(
        state.roots.length === 0 ? 'ca.absent' : 'ca.exported',
        state.roots.length === 0 ? 'there is no CA yet' : 'no root key is on this node',
      )
    const was = root.key.file
    const certificate = readDer(room, root.certificate)
    const key = openKeyFile(join(room.directory, was), room.passphrase)
    const target = resolve(to)
    if (target.startsWith(`${room.directory}/`))
      throw new KeyError(
        'ca.exists',
        `${to} is inside the CA's own directory: choose another place`,
      )
    if (!existsSync(target)) writeKeyFile(target, key, passphrase)
    room.step('copy')
    verifyKeyFile(target, spkiOf(certificate), passphrase)
    room.step('verified')
    const sha256 = createHash('sha256').update(readFileSync(target)).digest('hex')
    const roots = state.roots.with(at, {
      ...root,
      key: { kind: 'exported', at: room.now(), was, sha256 },
    })
    const message = `root key exported to a file with SHA-256 ${sha256}, and taken off this node`
    const told = act(room, {
      operation: 'ca:export-root',
      verb: 'delete',
      entity: keyIdOf(certificate),
      message,
    })
    return await Promise.resolve({
      state: { ...state, roots },
      acts: [told],
      value: { file: target, sha256, was },
    })
  }).then(({ file, sha256, was }) => {
    // The state says that a verified copy exists; should this not happen, the next start does it.
    rmSync(join(room.directory, was), { force: true })
    syncDirectory(room.directory)
    room.step('removed')
    return { file, sha256 }
  })
}

function spkiOf(certificate: Uint8Array): Uint8Array {
  const { publicKey } = new X509Certificate(certificate)
  return new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
}

/** The current root with its key: from this node, or from the file somebody brought. Throws KeyError. */
function rootAtHand(room: CaRoom, state: CaState, brought: RootKeyFile | undefined): RootAtHand {
  const [root] = state.roots
  if (root === undefined) throw new KeyError('ca.absent', 'there is no CA yet')
  if (root.key.kind === 'foreign')
    throw new KeyError(
      'ca.root_away',
      'the root is not ours: sallyport ca init --subordinate makes a request to it',
    )
  const certificate = readDer(room, root.certificate)
  if (brought === undefined && root.key.kind !== 'file')
    throw new KeyError('ca.root_away', 'the root key was exported: bring it with --root-key FILE')
  const key =
    brought === undefined && root.key.kind === 'file'
      ? openKeyFile(join(room.directory, root.key.file), room.passphrase)
      : openKeyFile(brought?.file ?? '', {
          text: brought?.passphrase ?? '',
          file: 'the file given for it',
        })
  if (!Buffer.from(publicKeyOf(key)).equals(spkiOf(certificate)))
    throw new KeyError('key.mismatch', 'that is not the key of the current root')
  return { certificate, signer: softwareSigner(key) }
}

export interface RotateOptions {
  readonly rootKey?: RootKeyFile | undefined
  /** A new root as well, joined with the old one by cross-certificates. */
  readonly root?: boolean | undefined
  /** Sign with the new CA at once, without giving gateways and devices time to hear of it. */
  readonly now?: boolean | undefined
}
export interface Rotated {
  /** When the new issuing CA begins to sign, epoch ms. */
  readonly activeFrom: number
  readonly certificate: string
}

/** How long every device has renewed at least once, and has seen the new CA in cacerts. */
const WAIT_MS = profiles.device.lifetimeSeconds.usual * 1_000

/**
 * A new issuing CA: served and accepted from now on, signing after a device lifetime (or `now`).
 * With one waiting already, `now` lets it sign; otherwise that is `ca.exists`. Throws KeyError, CaError.
 */
export async function rotate(room: CaRoom, options: RotateOptions): Promise<Rotated> {
  return await alone(room, async (state) => {
    const waiting = state.issuers.find((each) => each.state === 'next')
    if (waiting !== undefined) {
      if (options.now !== true)
        throw new KeyError(
          'ca.exists',
          `an issuing CA waits already, until ${dateOf(waiting.active_from)}; --now lets it sign at once`,
        )
      const issuers = state.issuers.map((each) =>
        each === waiting ? { ...each, active_from: room.now() } : each,
      )
      const told = act(room, {
        operation: 'ca:rotate',
        verb: 'update',
        entity: waiting.certificate,
        message: 'the waiting issuing CA signs at once',
      })
      return {
        state: { ...state, issuers },
        acts: [told],
        value: { activeFrom: room.now(), certificate: waiting.certificate },
      }
    }
    const current = rootAtHand(room, state, options.rootKey)
    const occasion = { tenant: room.tenant, now: instant(room.now()), random }
    const fresh = options.root === true ? await newRoot(room, current) : undefined
    const made = newIssuingKey(room, labelFor(room, state))
    room.step('issuing key')
    const root = fresh?.root ?? current
    const certificate = await createIssuing({ ...occasion, root, signer: made.signer })
    const name = `${nameFor('issuing', made.signer.publicKey)}.crt`
    writeCertificate(room, name, certificate)
    room.step('issuing certificate')
    const activeFrom = options.now === true ? room.now() : room.now() + WAIT_MS
    const message = `new issuing CA${fresh === undefined ? '' : ' and root'}, signing from ${dateOf(activeFrom)}`
    const told = act(room, {
      operation: 'ca:rotate',
      verb: 'create',
      entity: keyIdOf(certificate),
      message,
    })
    const since = room.now()
    const next: CaState = {
      ...state,
      roots:
        fresh === undefined
          ? state.roots
          : [...state.roots, { certificate: fresh.name, key: fresh.key, since }],
      crosses: [...state.crosses, ...(fresh?.crosses ?? [])],
      issuers: [...state.issuers, entry(name, [], made.place, 'next', since, activeFrom)],
    }
    return { state: next, acts: [told], value: { activeFrom, certificate: name } }
  })
}

function dateOf(at: number | null): string {
  return at === null ? '-' : new Date(at).toISOString()
}

async function newRoot(room: CaRoom, old: RootAtHand) {
  const key = generateKey('p384')
  const signer = softwareSigner(key)
  const stem = nameFor('root', signer.publicKey)
  const place: KeyPlace = { kind: 'file', file: `${stem}.key.pem` }
  writeKeyFile(join(room.directory, place.file), key, room.passphrase)
  room.step('root key')
  const occasion = { tenant: room.tenant, now: instant(room.now()), random }
  const root = { certificate: await createRoot({ ...occasion, signer }), signer }
  writeCertificate(room, `${stem}.crt`, root.certificate)
  const { oldWithNew, newWithOld } = await crossCertify(old, root, occasion)
  const crosses = [newWithOld, oldWithNew].map((der) => {
    const name = `${nameFor('cross', der)}.crt`
    writeCertificate(room, name, der)
    return name
  })
  room.step('root certificate')
  return { root, name: `${stem}.crt`, key: place, crosses }
}

/** A `next` issuing CA whose time has come signs from now on. True if that changed anything. */
export async function activateDue(room: CaRoom): Promise<boolean> {
  return await alone(room, async (state) => {
    const due = state.issuers.find(
      (each) => each.state === 'next' && (each.active_from ?? Infinity) <= room.now(),
    )
    if (due === undefined) return await Promise.resolve({ state, acts: [], value: false })
    const issuers = state.issuers.map((each): IssuingEntry => {
      if (each === due) return { ...each, state: 'active', active_from: null }
      return each.state === 'active' ? { ...each, state: 'retired' } : each
    })
    const told = act(room, {
      operation: 'ca:activate',
      verb: 'update',
      entity: keyIdOf(readDer(room, due.certificate)),
      message: `${due.certificate} signs from now on`,
    })
    return {
      state: { ...state, issuers, roots: currentFirst(room, state, due) },
      acts: [told],
      value: true,
    }
  })
}

function currentFirst(room: CaRoom, state: CaState, active: IssuingEntry) {
  const top = new X509Certificate(readDer(room, active.above.at(-1) ?? active.certificate))
  const isItsRoot = (name: string) => top.verify(new X509Certificate(readDer(room, name)).publicKey)
  const own = state.roots.find(({ certificate }) => isItsRoot(certificate))
  return own === undefined ? state.roots : [own, ...state.roots.filter((each) => each !== own)]
}

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

/**
 * Brings an issuing CA of another root: at once where there is none yet, else after a device
 * lifetime. Throws KeyError `ca.refused` naming every rule that the chain breaks (ca/adopt.ts).
 */
export async function importIssuing(room: CaRoom, options: ImportOptions): Promise<Rotated> {
  const chain = certificatesIn(options.chain)
  return await alone(room, async (state) => {
    const key = importedKey(room, state, options)
    const known = [...state.issuers, ...state.roots].map(({ certificate }) =>
      readDer(room, certificate),
    )
    const broken = brokenAdoptionRules({
      chain,
      publicKey: key.publicKey,
      names: room.names,
      now: instant(room.now()),
      known,
    })
    if (broken.length > 0)
      throw new KeyError('ca.refused', `this chain cannot issue here; not so: ${broken.join('; ')}`)
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
    const activeFrom = first || options.now === true ? since : since + WAIT_MS
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
      value: { activeFrom, certificate: name },
    })
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
  throw new KeyError(
    'ca.absent',
    'no request was made here: give the key with --key FILE or --pkcs11 LABEL',
  )
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
      ? new KeyError(
          'key.unreadable',
          'the key cannot be read; if it is sealed, give --key-passphrase-file',
          { cause },
        )
      : new KeyError('key.passphrase', 'the passphrase does not open the key', { cause })
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
