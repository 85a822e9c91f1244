/** What an operator does to the CA: make it, and replace its issuing CA, with a new root or without. */
import { X509Certificate, type KeyObject } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import {
  createIssuing,
  createRoot,
  crossCertify,
  instant,
  softwareSigner,
  type RootAtHand,
} from '#ca'
import { KeyError } from './errors.ts'
import { generateKey } from './file.ts'
import {
  absent,
  act,
  alone,
  dateOf,
  entry,
  keyIdOf,
  labelFor,
  nameFor,
  newIssuingKey,
  random,
  readDer,
  spkiOf,
  writeCertificate,
  type CaRoom,
} from './room.ts'
import { openKeyFile, publicKeyOf, sealPlainKey, writeKeyFile } from './sealed.ts'
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

/** The current root with its key: from this node, or from the file somebody brought. Throws KeyError. */
function rootAtHand(room: CaRoom, state: CaState, brought: RootKeyFile | undefined): RootAtHand {
  const [root] = state.roots
  if (root === undefined) throw absent(room)
  if (root.key.kind === 'foreign')
    throw new KeyError('ca.root_away', 'the root is that of a CA above', {
      next: 'make a request to it: sallyport ca init --subordinate; then sallyport ca import',
    })
  const certificate = readDer(room, root.certificate)
  if (brought === undefined && root.key.kind !== 'file')
    throw new KeyError(
      'ca.root_away',
      'a new issuing CA is signed by the root, whose key is away',
      {
        next: 'bring the file: --root-key FILE --root-passphrase-file FILE; it is read and not kept',
      },
    )
  const key =
    brought === undefined && root.key.kind === 'file'
      ? openKeyFile(join(room.directory, root.key.file), room.passphrase)
      : openKeyFile(brought?.file ?? '', { text: brought?.passphrase ?? '', file: '' }, room.medium)
  if (!Buffer.from(publicKeyOf(key)).equals(spkiOf(certificate)))
    throw new KeyError(
      'key.mismatch',
      'the file holds a key that is not that of the current root',
      {
        next: 'sallyport ca status names the root; bring the file that was exported for it',
      },
    )
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
          `an issuing CA waits already, until ${dateOf(waiting.active_from)}`,
          { next: 'wait for it, or let it sign at once: sallyport ca rotate --now' },
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
    const activeFrom = options.now === true ? room.now() : room.now() + room.deviceLifetimeMs
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
