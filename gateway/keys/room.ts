/** What every act on the CA needs: directory, passphrase, token, names, clock, and who acts. */
import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { encodePem, softwareSigner, type Signer, type WantedNames } from '#ca'
import { splitHostPort, type Config } from '../config.ts'
import { deviceLifetimeSeconds } from '../est-settings.ts'
import { KeyError } from './errors.ts'
import { disk, generateKey, readSecretFile, replaceFile, type Medium } from './file.ts'
import { readPassphrase, type Passphrase } from './passphrase.ts'
import { Pkcs11Token } from './pkcs11.ts'
import { openKeyFile, publicKeyOf, writeKeyFile } from './sealed.ts'
import { commitState, emptyState, lockCa, readState, resolveLeftovers } from './state.ts'
import type { Act, CaState, IssuingEntry, KeyPlace } from './state.ts'

export interface CaRoom extends Disposable {
  /** `<data>/ca`. */
  readonly directory: string
  readonly tenant: string
  readonly passphrase: Passphrase
  /** Where new issuing keys are made, if that is not a file. */
  readonly token: Pkcs11Token | null
  readonly names: WantedNames
  /** After so long every device has renewed at least once, and has seen a new CA in cacerts. */
  readonly deviceLifetimeMs: number
  /** Opened issuing keys by file, so that scrypt is paid once; a root key is never among them. */
  readonly signers: Map<string, Signer>
  readonly now: () => number
  /** Who acts, as the log names them. */
  readonly by: string
  /** Told after each step is on disk: where a test lets the process die. */
  readonly step: (name: string) => void
  /** What a copy of the root key goes to and comes from. */
  readonly medium: Medium
}

export interface RoomOptions {
  readonly now?: () => number
  readonly step?: (name: string) => void
  readonly medium?: Medium
}

/** Loads the HSM's library where one is configured, and opens nothing else. Throws KeyError. */
export function openRoom(config: Config, by: string, options: RoomOptions = {}): CaRoom {
  const { ca = {} } = config
  const { pkcs11 } = ca
  const token =
    pkcs11 === undefined
      ? null
      : new Pkcs11Token({
          module: pkcs11.module,
          token: pkcs11.token,
          pin: readSecretFile(pkcs11.pin_file, 'PIN file').trimEnd(),
          binding: pkcs11.binding,
        })
  const { dns, ip } = namesOf(config)
  let passphrase: Passphrase | undefined
  return {
    directory: join(config.data, 'ca'),
    tenant: config.tenant,
    // Read when it is first needed: looking at a CA that is not there makes nothing.
    get passphrase() {
      return (passphrase ??= readPassphrase(config.data, ca.passphrase_file))
    },
    token,
    names: { tenant: config.tenant, dnsNames: dns, ipAddresses: ip },
    deviceLifetimeMs: deviceLifetimeSeconds(config.est) * 1_000,
    signers: new Map(),
    now: options.now ?? (() => Date.now()),
    by,
    step: options.step ?? (() => undefined),
    medium: options.medium ?? disk,
    [Symbol.dispose]: () => token?.[Symbol.dispose](),
  }
}

/** The names people, devices and browsers use for this gateway. */
export function namesOf(config: Config): { readonly dns: string[]; readonly ip: string[] } {
  const { host } = splitHostPort(config.listen)
  const all = [config.public_host, 'localhost', '127.0.0.1', '::1', host, ...config.names]
  const named = new Set(all.filter((name) => name !== '0.0.0.0' && name !== '::'))
  return {
    dns: [...[...named].filter((name) => isIP(name) === 0), `*.${config.apps_domain}`],
    ip: [...named].filter((name) => isIP(name) !== 0),
  }
}

export const random = (bytes: number): Uint8Array => new Uint8Array(randomBytes(bytes))

/** Begins every file of one key: `issuing-3f9a0c12`. */
export function nameFor(kind: 'issuing' | 'root' | 'above' | 'cross' | 'request', der: Uint8Array) {
  return `${kind}-${createHash('sha256').update(der).digest('hex').slice(0, 8)}`
}

export function readDer(room: Pick<CaRoom, 'directory'>, name: string): Uint8Array {
  const path = join(room.directory, name)
  try {
    return new Uint8Array(new X509Certificate(readFileSync(path)).raw)
  } catch (cause) {
    throw new KeyError('key.unreadable', `${path} does not hold a certificate`, { cause })
  }
}

export function writeCertificate(room: CaRoom, name: string, der: Uint8Array): void {
  replaceFile(join(room.directory, name), encodePem('CERTIFICATE', der), 0o644)
}

/** What signs for a key that is here; undefined for one that is not. Throws KeyError. */
export function signerAt(room: CaRoom, key: KeyPlace, certificate: Uint8Array): Signer | undefined {
  if (key.kind === 'file') return fileSigner(room, key.file)
  if (key.kind !== 'pkcs11') return undefined
  if (room.token === null)
    throw new KeyError(
      'hsm.key',
      `the key ${key.label} is in an HSM, and ca.pkcs11 is not configured`,
    )
  const spki = new X509Certificate(certificate).publicKey.export({ type: 'spki', format: 'der' })
  return room.token.signer(key.label, new Uint8Array(spki))
}

function fileSigner(room: CaRoom, file: string): Signer {
  const known = room.signers.get(file)
  if (known !== undefined) return known
  const signer = softwareSigner(openKeyFile(join(room.directory, file), room.passphrase))
  room.signers.set(file, signer)
  return signer
}

/**
 * A new issuing key: in the token under `label` where one is configured, else sealed as `name`, or
 * named after the key without one. A key that an act cut short left under that name is used.
 */
export function newIssuingKey(
  room: CaRoom,
  label: string,
  name?: string,
): { readonly signer: Signer; readonly place: KeyPlace } {
  if (room.token !== null)
    return { signer: inToken(room.token, label), place: { kind: 'pkcs11', label } }
  if (name !== undefined && existsSync(join(room.directory, name)))
    return { signer: fileSigner(room, name), place: { kind: 'file', file: name } }
  const key = generateKey('p256')
  const file = name ?? `${nameFor('issuing', publicKeyOf(key))}.key.pem`
  writeKeyFile(join(room.directory, file), key, room.passphrase)
  const signer = softwareSigner(key)
  room.signers.set(file, signer)
  return { signer, place: { kind: 'file', file } }
}

function inToken(token: Pkcs11Token, label: string): Signer {
  try {
    return token.signer(label, token.publicKey(label))
  } catch (error) {
    if (!(error instanceof KeyError) || error.code !== 'hsm.key') throw error
    return token.generate(label, 'p256')
  }
}

export function act(
  room: CaRoom,
  facts: Pick<Act, 'operation' | 'verb' | 'entity' | 'message'>,
): Act {
  return {
    id: `a_${Buffer.from(random(10)).toString('hex')}`,
    at: room.now(),
    by: room.by,
    ...facts,
  }
}

/** That nothing was made in this directory, most often the wrong one, or that it is not done. */
export function absent({ directory }: Pick<CaRoom, 'directory'>): KeyError {
  if ((readState(directory)?.requested ?? null) !== null)
    return new KeyError('ca.waiting', 'the issuing CA waits for its certificate from a CA above', {
      next: 'bring it: sallyport ca import --chain FILE',
    })
  return new KeyError('ca.absent', `there is no CA in ${directory}`, {
    next: 'name the data directory with --data or --config; or make a CA there: sallyport ca init',
  })
}

export function labelFor(room: CaRoom, state: CaState): string {
  return `${room.tenant} issuing ${state.issuers.length + 1}`
}

/** A line of the state about an issuing CA. */
export function entry(
  certificate: string,
  above: string[],
  key: KeyPlace,
  state: IssuingEntry['state'],
  since: number,
  activeFrom: number | null,
): IssuingEntry {
  return { certificate, above, key, state, since, active_from: activeFrom }
}

/** What the log calls a certificate by. */
export function keyIdOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex').slice(0, 16)
}

export function spkiOf(certificate: Uint8Array): Uint8Array {
  const { publicKey } = new X509Certificate(certificate)
  return new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
}

export function dateOf(at: number | null): string {
  return at === null ? '-' : new Date(at).toISOString()
}

/**
 * Runs one act alone: puts right what an earlier one left, lets `work` prepare files, and makes its
 * state and its record count together. Throws KeyError.
 */
export async function alone<T>(
  room: CaRoom,
  work: (
    state: CaState,
    known: boolean,
  ) => Promise<{ state: CaState; acts: readonly Act[]; value: T }>,
): Promise<T> {
  using _lock = lockCa(room.directory)
  const found = readState(room.directory)
  const before = found ?? emptyState(room.tenant)
  if (before.tenant !== room.tenant)
    throw new KeyError(
      'ca.state',
      `this CA is of the tenant ${before.tenant}, not ${room.tenant}`,
      {
        next: `set tenant: ${before.tenant} in the configuration, or name another data directory`,
      },
    )
  const resumed = resolveLeftovers(room.directory, found).map((message) =>
    act(room, { operation: 'ca:resume', verb: 'update', entity: 'ca', message }),
  )
  // What was put right is on record even if the work below is refused.
  if (found !== undefined && resumed.length > 0)
    commitState(room.directory, { ...found, acts: [...found.acts, ...resumed] })
  const { state, acts, value } = await work(before, found !== undefined)
  if (acts.length === 0) return value
  commitState(room.directory, { ...state, acts: [...before.acts, ...resumed, ...acts] })
  room.step('state')
  return value
}

/** Forgets acts that the log has heard. */
export function strikeOff(room: CaRoom, told: ReadonlySet<string>): void {
  using _lock = lockCa(room.directory)
  const state = readState(room.directory)
  if (state === undefined) return
  commitState(room.directory, { ...state, acts: state.acts.filter(({ id }) => !told.has(id)) })
}
