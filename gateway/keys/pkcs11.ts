/**
 * Keys in an HSM over PKCS#11. The binding `pkcs11js` compiles, so it is no dependency: it is looked
 * for when a token is configured. A token that fails is let go and opened anew by the next signature:
 * the one that fails is answered 503, nothing has to be restarted. One token per process.
 */
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { hashOf, type Signer, type SigningAlgorithm } from '#ca'
import { createHash } from 'node:crypto'
import { KeyError } from './errors.ts'

export interface Pkcs11Settings {
  /** The vendor's library, as in /usr/lib/softhsm/libsofthsm2.so. */
  readonly module: string
  /** Label of the token. */
  readonly token: string
  readonly pin: string
  /** A folder whose node_modules holds pkcs11js; this program's own where absent. */
  readonly binding?: string | undefined
  /** Sessions, and so signatures, at a time. Default 4. */
  readonly sessions?: number | undefined
}

type Handle = Buffer
interface Attribute {
  readonly type: number
  readonly value?: Buffer | boolean | number | string
}
/** What is used of pkcs11js 2.1.7. */
interface Cryptoki {
  load(path: string): void
  C_Initialize(options: { readonly flags: number }): void
  C_Finalize(): void
  C_GetSlotList(tokenPresent: boolean): Handle[]
  C_GetTokenInfo(slot: Handle): { readonly label: string }
  C_OpenSession(slot: Handle, flags: number): Handle
  C_Login(session: Handle, user: number, pin: string): void
  C_FindObjectsInit(session: Handle, template: readonly Attribute[]): void
  C_FindObjects(session: Handle, most: number): Handle[]
  C_FindObjectsFinal(session: Handle): void
  C_GetAttributeValue(
    session: Handle,
    object: Handle,
    template: readonly Attribute[],
  ): readonly { readonly value: Buffer }[]
  C_GenerateKeyPair(
    session: Handle,
    mechanism: { readonly mechanism: number; readonly parameter: null },
    publicTemplate: readonly Attribute[],
    privateTemplate: readonly Attribute[],
  ): { readonly publicKey: Handle; readonly privateKey: Handle }
  C_SignInit(
    session: Handle,
    mechanism: { readonly mechanism: number; readonly parameter: null },
    key: Handle,
  ): void
  C_SignAsync(session: Handle, data: Buffer, out: Buffer): Promise<Buffer>
}

/** PKCS#11 2.40, the constants in use. */
const CKF = { osLocking: 2, serial: 4, rw: 2 } as const
const CKU_USER = 1
const CKO = { publicKey: 2, privateKey: 3 } as const
const CKK_EC = 3
const CKA = {
  class: 0x00,
  token: 0x01,
  private: 0x02,
  label: 0x03,
  keyType: 0x100,
  id: 0x102,
  sensitive: 0x103,
  sign: 0x108,
  verify: 0x10a,
  extractable: 0x162,
  ecParams: 0x180,
  ecPoint: 0x181,
} as const
const CKM = { generateEc: 0x1040, ecdsa: 0x1041 } as const
const ALREADY_INITIALIZED = 0x191
const ALREADY_LOGGED_IN = 0x100

interface Curve {
  readonly algorithm: SigningAlgorithm
  /** The curve's identifier, DER. */
  readonly parameters: Buffer
  /** SubjectPublicKeyInfo up to the point (RFC 5480 2). */
  readonly prefix: Buffer
  /** Octets of r, and of s. */
  readonly size: number
}
const curves: Readonly<Record<'p256' | 'p384', Curve>> = {
  p256: {
    algorithm: 'ecdsa-p256-sha256',
    parameters: Buffer.from('06082a8648ce3d030107', 'hex'),
    prefix: Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex'),
    size: 32,
  },
  p384: {
    algorithm: 'ecdsa-p384-sha384',
    parameters: Buffer.from('06052b81040022', 'hex'),
    prefix: Buffer.from('3076301006072a8648ce3d020106052b81040022036200', 'hex'),
    size: 48,
  },
}

interface Login {
  readonly idle: Handle[]
  readonly waiting: ((session: Handle | undefined) => void)[]
  readonly keys: Map<string, Handle>
  using: number
  failed: boolean
}

export class Pkcs11Token implements Disposable {
  readonly #settings: Pkcs11Settings
  readonly #cryptoki: Cryptoki
  #login: Login | undefined

  /** Loads binding and library; the token itself is needed at the first use. Throws KeyError `hsm.binding`. */
  constructor(settings: Pkcs11Settings) {
    this.#settings = settings
    this.#cryptoki = loadBinding(settings)
  }

  /** Makes a P-256 or P-384 key that cannot leave the token. Throws KeyError `hsm.key`, `hsm.unavailable`. */
  generate(label: string, kind: 'p256' | 'p384'): Signer {
    return this.#guarded((session) => {
      if (this.#find(session, CKO.privateKey, label) !== undefined)
        throw new KeyError('hsm.key', `the token has a key called ${label} already`)
      const id = Buffer.from(label)
      const common = [
        { type: CKA.token, value: true },
        { type: CKA.label, value: label },
        { type: CKA.id, value: id },
      ]
      this.#cryptoki.C_GenerateKeyPair(
        session,
        { mechanism: CKM.generateEc, parameter: null },
        [
          { type: CKA.class, value: CKO.publicKey },
          { type: CKA.keyType, value: CKK_EC },
          { type: CKA.ecParams, value: curves[kind].parameters },
          { type: CKA.verify, value: true },
          ...common,
        ],
        [
          { type: CKA.class, value: CKO.privateKey },
          { type: CKA.keyType, value: CKK_EC },
          { type: CKA.private, value: true },
          { type: CKA.sensitive, value: true },
          { type: CKA.extractable, value: false },
          { type: CKA.sign, value: true },
          ...common,
        ],
      )
      return this.signer(label, this.#publicKey(session, label))
    })
  }

  /** SubjectPublicKeyInfo of the key of that label, DER. Throws KeyError `hsm.key`, `hsm.unavailable`. */
  publicKey(label: string): Uint8Array {
    return this.#guarded((session) => this.#publicKey(session, label))
  }

  /**
   * Signs with the key of that label, whose public key the caller knows (from its certificate), so
   * that a node starts while its token is away. Its `sign` rejects with KeyError `hsm.unavailable`,
   * `hsm.key`; what calls it makes that a 503.
   */
  signer(label: string, publicKey: Uint8Array): Signer {
    const curve = Object.values(curves).find(({ prefix }) =>
      prefix.equals(publicKey.subarray(0, prefix.length)),
    )
    if (curve === undefined)
      throw new KeyError('hsm.key', 'a CA key in a token is on P-256 or P-384')
    const hash = hashOf[curve.algorithm] ?? 'sha256'
    return {
      algorithm: curve.algorithm,
      publicKey,
      sign: async (tbs) => {
        const digest = createHash(hash).update(tbs).digest()
        return joined(await this.#sign(label, digest, curve.size * 2))
      },
    }
  }

  async #sign(label: string, digest: Buffer, length: number): Promise<Buffer> {
    const login = this.#opened()
    const session = await this.#take(login)
    try {
      const key = login.keys.get(label) ?? this.#find(session, CKO.privateKey, label)
      if (key === undefined) throw new KeyError('hsm.key', `the token has no key called ${label}`)
      login.keys.set(label, key)
      this.#cryptoki.C_SignInit(session, { mechanism: CKM.ecdsa, parameter: null }, key)
      return await this.#cryptoki.C_SignAsync(session, digest, Buffer.alloc(length))
    } catch (cause) {
      // A key that is missing may be a token that is: either way the next one looks again.
      login.failed = true
      throw cause instanceof KeyError ? cause : unavailable(cause)
    } finally {
      this.#give(login, session)
    }
  }

  #opened(): Login {
    if (this.#login?.failed === true) {
      // Signatures under way still hold the library: it is let go when the last one has ended.
      if (this.#login.using > 0) throw unavailable('it failed a moment ago')
      this.#letGo()
    }
    return (this.#login ??= this.#open())
  }

  #open(): Login {
    const { token, pin, sessions = 4 } = this.#settings
    try {
      initialize(this.#cryptoki)
      const slot = this.#cryptoki
        .C_GetSlotList(true)
        .find((each) => this.#cryptoki.C_GetTokenInfo(each).label.trimEnd() === token)
      if (slot === undefined) throw new Error(`there is no token called ${token}`)
      const idle = Array.from({ length: sessions }, () =>
        this.#cryptoki.C_OpenSession(slot, CKF.serial | CKF.rw),
      )
      const [first] = idle
      if (first !== undefined) logIn(this.#cryptoki, first, pin)
      return { idle, waiting: [], keys: new Map(), using: 0, failed: false }
    } catch (cause) {
      // Slots are read once per initialisation: the next try must see a token that has come back.
      this.#letGo()
      throw unavailable(cause)
    }
  }

  async #take(login: Login): Promise<Handle> {
    login.using++
    const free = login.idle.pop()
    if (free !== undefined) return free
    const session = await new Promise<Handle | undefined>((resolve) => login.waiting.push(resolve))
    if (session !== undefined) return session
    login.using--
    throw unavailable('it failed while this signature waited')
  }

  #give(login: Login, session: Handle): void {
    login.using--
    if (login.failed) for (const refuse of login.waiting.splice(0)) refuse(undefined)
    const next = login.waiting.shift()
    if (next === undefined) login.idle.push(session)
    else next(session)
  }

  #guarded<T>(work: (session: Handle) => T): T {
    const login = this.#opened()
    const [session] = login.idle
    if (session === undefined) throw unavailable('all sessions are busy')
    try {
      return work(session)
    } catch (cause) {
      if (cause instanceof KeyError) throw cause
      login.failed = true
      throw unavailable(cause)
    }
  }

  #find(session: Handle, kind: number, label: string): Handle | undefined {
    this.#cryptoki.C_FindObjectsInit(session, [
      { type: CKA.class, value: kind },
      { type: CKA.label, value: label },
    ])
    try {
      const found = this.#cryptoki.C_FindObjects(session, 2)
      if (found.length > 1) throw new KeyError('hsm.key', `the token has two keys called ${label}`)
      return found[0]
    } finally {
      this.#cryptoki.C_FindObjectsFinal(session)
    }
  }

  #publicKey(session: Handle, label: string): Uint8Array {
    const object = this.#find(session, CKO.publicKey, label)
    if (object === undefined)
      throw new KeyError('hsm.key', `the token has no public key called ${label}`)
    const [parameters, point] = this.#cryptoki.C_GetAttributeValue(session, object, [
      { type: CKA.ecParams },
      { type: CKA.ecPoint },
    ])
    const curve = Object.values(curves).find((each) => parameters?.value.equals(each.parameters))
    if (curve === undefined || point === undefined)
      throw new KeyError('hsm.key', `${label} is not on P-256 or P-384`)
    // An OCTET STRING around the uncompressed point, whose length fits one octet for both curves.
    return new Uint8Array(
      Buffer.concat([curve.prefix, point.value.subarray(-(curve.size * 2 + 1))]),
    )
  }

  #letGo(): void {
    this.#login = undefined
    try {
      this.#cryptoki.C_Finalize()
    } catch {
      // It was not initialised, or is as gone as it should be.
    }
  }

  [Symbol.dispose](): void {
    this.#letGo()
  }
}

function initialize(cryptoki: Cryptoki): void {
  try {
    // Without OS locking a signature in the thread pool crashes the process.
    cryptoki.C_Initialize({ flags: CKF.osLocking })
  } catch (error) {
    if (codeOf(error) !== ALREADY_INITIALIZED) throw error
  }
}

function logIn(cryptoki: Cryptoki, session: Handle, pin: string): void {
  try {
    cryptoki.C_Login(session, CKU_USER, pin)
  } catch (error) {
    if (codeOf(error) !== ALREADY_LOGGED_IN) throw error
  }
}

function codeOf(error: unknown): number | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'number'
    ? error.code
    : undefined
}

function unavailable(cause: unknown): KeyError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new KeyError('hsm.unavailable', `the HSM does not sign: ${why}`, { cause })
}

function loadBinding({ module, binding }: Pkcs11Settings): Cryptoki {
  const folder = binding ?? join(import.meta.dirname, '..', '..')
  const load = createRequire(join(folder, 'package.json'))
  let made: Cryptoki
  try {
    const { PKCS11 } = load('pkcs11js') as { readonly PKCS11: new () => Cryptoki }
    made = new PKCS11()
  } catch (cause) {
    throw new KeyError(
      'hsm.binding',
      'keys in an HSM need the package pkcs11js, which compiles and so is not installed by itself; ' +
        'run: npm install --prefix DIR pkcs11js@2.1.7, and set ca.pkcs11.binding: DIR',
      { cause },
    )
  }
  try {
    made.load(module)
  } catch (cause) {
    throw new KeyError('hsm.binding', `the PKCS#11 library ${module} cannot be loaded`, { cause })
  }
  return made
}

/** r||s, as PKCS#11 gives it, to Ecdsa-Sig-Value (RFC 3279 2.2.3). */
export function joined(raw: Buffer): Uint8Array {
  const half = raw.length / 2
  const parts = [raw.subarray(0, half), raw.subarray(half)].map(integer)
  const content = Buffer.concat(parts)
  // 2 * (48 + 1 + 2) octets at most: the length fits one octet below 128.
  return new Uint8Array(Buffer.concat([Buffer.of(0x30, content.length), content]))
}

function integer(magnitude: Buffer): Buffer {
  const first = magnitude.findIndex((octet) => octet !== 0)
  const rest = first === -1 ? Buffer.of(0) : magnitude.subarray(first)
  const value = (rest[0] ?? 0) < 0x80 ? rest : Buffer.concat([Buffer.of(0), rest])
  return Buffer.concat([Buffer.of(2, value.length), value])
}
