/**
 * The device's key in a PKCS#11 token (an HSM, a smart card, a TPM): it signs there and cannot be copied. TLS takes it
 * through OpenSSL's engine `pkcs11`; requests are signed by the same engine, called in this very process. decisions/0016.
 */
import { createPublicKey } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import type { At } from './at.ts'
import { AgentError, messageOf } from './errors.ts'
import { Identity } from './identity.ts'
import type { TokenKey } from './identity.ts'

export interface Pkcs11 {
  /** The token's library, as /usr/lib/softhsm/libsofthsm2.so. */
  readonly module: string
  /** RFC 7512, as `pkcs11:token=press-07;object=device`; without a PIN. */
  readonly uri: string
  /** One line: the user PIN. */
  readonly pinFile: string
  /** OpenSSL's engine; undefined: where Debian puts it. */
  readonly engine: string | undefined
}

const ENGINES = ['x86_64', 'aarch64'].map(
  (machine) => `/usr/lib/${machine}-linux-gnu/engines-3/pkcs11.so`,
)
const KEYS = ['module', 'uri', 'pin_file', 'engine']
/** Nothing that RFC 7512 would have escaped: the path of the PIN stands in the URI that the engine gets. */
const PATH = /^\/[\w./+@:,=-]{1,255}$/
const URI = /^pkcs11:[\w.~%:@!$'()*+,=;-]{1,400}$/

/** `pkcs11` of agent.json. Throws AgentError `config.invalid` with the place of the mistake. */
export function pkcs11Of(at: At): Pkcs11 | undefined {
  if (at.value === undefined) return undefined
  const value = at.record()
  for (const key of Object.keys(value))
    if (!KEYS.includes(key))
      throw at.inside(key, value[key]).fail(`unknown; the keys are ${KEYS.join(', ')}`)
  const path = (key: string): string => {
    const inner = at.inside(key, value[key])
    if (typeof inner.value === 'string' && PATH.test(inner.value)) return inner.value
    throw inner.fail('an absolute path of letters, digits and . _ - + @ : , = is expected')
  }
  const uri = at.inside('uri', value['uri'])
  if (typeof uri.value !== 'string' || !URI.test(uri.value))
    throw uri.fail('a URI like "pkcs11:token=press-07;object=device" is expected')
  if (/pin-|module-/.test(uri.value))
    throw uri.fail('the PIN stands in pin_file, and the library in module')
  const engine = value['engine'] === undefined ? undefined : path('engine')
  return { module: path('module'), uri: uri.value, pinFile: path('pin_file'), engine }
}

/** The value of the file that `pkcs11Of` reads. */
export function printPkcs11(settings: Pkcs11 | undefined): object | undefined {
  if (settings === undefined) return undefined
  const { module, uri, pinFile, engine } = settings
  return { module, uri, pin_file: pinFile, engine }
}

/** The identity of a device. Throws AgentError `identity.token`, `data.unwritable`. */
export function openIdentity(config: {
  readonly dataDir: string
  readonly pkcs11: Pkcs11 | undefined
}): Identity {
  const { dataDir, pkcs11 } = config
  return new Identity(dataDir, pkcs11 === undefined ? undefined : openToken(pkcs11))
}

/** `why` is a sentence without its end. */
export function tokenError(why: string, cause?: unknown): AgentError {
  return new AgentError(
    'identity.token',
    `The key in the PKCS#11 token cannot be used: ${why}.`,
    'Check pkcs11 in agent.json: whether the token is there, module and engine are its own, and the PIN opens it.',
    { cause },
  )
}

/** Whether OpenSSL says that an error came from the engine. */
export function isOfToken(error: unknown): boolean {
  return error instanceof Error && 'library' in error && error.library === 'PKCS#11 module'
}

/** Finds the key. Throws AgentError `identity.token`. */
function openToken(settings: Pkcs11): TokenKey {
  const { module, uri, pinFile } = settings
  const engine = settings.engine ?? ENGINES.find((path) => existsSync(path))
  if (engine === undefined)
    throw tokenError(`there is no ${ENGINES[0]} (package libengine-pkcs11-openssl)`)
  for (const file of [module, engine])
    if (!existsSync(file)) throw tokenError(`there is no ${file}`)
  const name = basename(engine, '.so')
  const identifier = `${uri};type=private`
  const pin = readPin(pinFile)
  const openssl = loaded()
  load(openssl, name, engine)
  // The engine keeps both; a PIN in the URI would be in what it says of a key that it does not find.
  prepare(openssl, name, [
    ['MODULE_PATH', module],
    ['PIN', pin],
  ])
  const publicKey = withKey(openssl, { name, identifier }, (key) => readPublic(openssl, key))
  return {
    publicKey,
    sign: (hash, data) =>
      withKey(openssl, { name, identifier }, (key) => signWith(openssl, { key, hash, data })),
    tls: { privateKeyEngine: name, privateKeyIdentifier: identifier },
  }
}

function readPin(file: string): string {
  let text: string
  try {
    if ((statSync(file).mode & 0o007) !== 0)
      throw new Error('every user of this machine may use it')
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw tokenError(`its PIN file ${file}: ${messageOf(error)}`, error)
  }
  const pin = text.replace(/\r?\n$/, '')
  if (/^[\x20-\x7e]{1,255}$/.test(pin)) return pin
  throw tokenError(`its PIN file ${file} is not one line of printable characters`)
}

const DEFINITIONS = {
  ENGINE_by_id: { arguments: ['string'], return: 'pointer' },
  ENGINE_init: { arguments: ['pointer'], return: 'i32' },
  ENGINE_finish: { arguments: ['pointer'], return: 'i32' },
  ENGINE_free: { arguments: ['pointer'], return: 'i32' },
  ENGINE_ctrl_cmd_string: { arguments: ['pointer', 'string', 'pointer', 'i32'], return: 'i32' },
  ERR_clear_error: { arguments: [], return: 'void' },
  ENGINE_load_private_key: {
    arguments: ['pointer', 'string', 'pointer', 'pointer'],
    return: 'pointer',
  },
  EVP_PKEY_free: { arguments: ['pointer'], return: 'void' },
  i2d_PUBKEY: { arguments: ['pointer', 'pointer'], return: 'i32' },
  EVP_get_digestbyname: { arguments: ['string'], return: 'pointer' },
  EVP_MD_CTX_new: { arguments: [], return: 'pointer' },
  EVP_MD_CTX_free: { arguments: ['pointer'], return: 'void' },
  EVP_DigestSignInit: {
    arguments: ['pointer', 'pointer', 'pointer', 'pointer', 'pointer'],
    return: 'i32',
  },
  EVP_DigestSign: {
    arguments: ['pointer', 'pointer', 'pointer', 'pointer', 'u64'],
    return: 'i32',
  },
} as const

/** OpenSSL as this process has it. Throws AgentError `identity.token`. */
function loaded() {
  // Loading says to stderr that FFI is experimental; the agent's stderr is its log.
  const emit = Object.getOwnPropertyDescriptor(process, 'emitWarning')
  process.emitWarning = () => {}
  try {
    const ffi = process.getBuiltinModule('node:ffi')
    return { ...ffi.dlopen(null, DEFINITIONS).functions, ffi }
  } catch (error) {
    throw tokenError('this Node cannot call OpenSSL itself (node:ffi of Node 26 is needed)', error)
  } finally {
    if (emit !== undefined) Object.defineProperty(process, 'emitWarning', emit)
  }
}

type OpenSsl = ReturnType<typeof loaded>

function engineOf(openssl: OpenSsl, name: string): bigint {
  const engine = openssl.ENGINE_by_id(name)
  if (engine === 0n) throw tokenError('OpenSSL does not load its engine')
  return engine
}

/** Words to an engine with what each takes, null for nothing, in their order. */
type Said = readonly (readonly [string, string | null])[]

function prepare(openssl: OpenSsl, name: string, said: Said): void {
  const engine = engineOf(openssl, name)
  try {
    for (const [word, value] of said) {
      const argument = value === null ? 0n : Buffer.from(`${value}\0`)
      if (openssl.ENGINE_ctrl_cmd_string(engine, word, argument, 0) === 1) continue
      throw tokenError(`OpenSSL's engine ${name} does not take ${word}`)
    }
  } finally {
    openssl.ENGINE_free(engine)
    // What is left there would be taken for the failure of whatever Node does next.
    openssl.ERR_clear_error()
  }
}

/** For good: OpenSSL finds an engine by its name once it was loaded so, and Node does too. */
const engines = new Set<string>()

function load(openssl: OpenSsl, name: string, path: string): void {
  if (engines.has(name)) return
  prepare(openssl, 'dynamic', [
    ['SO_PATH', path],
    ['ID', name],
    ['LIST_ADD', '1'],
    ['LOAD', null],
  ])
  engines.add(name)
}

/** Gives the key to `use` and lets go of it: a token may be pulled in between. */
function withKey<T>(
  openssl: OpenSsl,
  { name, identifier }: { readonly name: string; readonly identifier: string },
  use: (key: bigint) => T,
): T {
  const engine = engineOf(openssl, name)
  try {
    if (openssl.ENGINE_init(engine) !== 1) throw tokenError('the engine does not load the module')
    try {
      const key = openssl.ENGINE_load_private_key(engine, identifier, 0n, 0n)
      if (key === 0n) throw tokenError('the token does not have it, or does not open with this PIN')
      try {
        return use(key)
      } finally {
        openssl.EVP_PKEY_free(key)
      }
    } finally {
      openssl.ENGINE_finish(engine)
    }
  } finally {
    openssl.ENGINE_free(engine)
    openssl.ERR_clear_error()
  }
}

function readPublic(openssl: OpenSsl, key: bigint) {
  const length = openssl.i2d_PUBKEY(key, 0n)
  if (length <= 0) throw tokenError('the token does not tell its public half')
  const der = Buffer.alloc(length)
  // OpenSSL moves the pointer that it writes through, so it gets one of its own.
  const at = Buffer.alloc(8)
  at.writeBigUInt64LE(openssl.ffi.getRawPointer(der))
  openssl.i2d_PUBKEY(key, at)
  return createPublicKey({ key: der, format: 'der', type: 'spki' })
}

/** Longer than any signature: RSA of 8,192 bits. */
const SIGNATURE_BYTES = 1024

function signWith(
  openssl: OpenSsl,
  of: { readonly key: bigint; readonly hash: string | null; readonly data: Uint8Array },
): Uint8Array {
  const digest = of.hash === null ? 0n : openssl.EVP_get_digestbyname(of.hash)
  const context = openssl.EVP_MD_CTX_new()
  try {
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(SIGNATURE_BYTES))
    const signature = Buffer.alloc(SIGNATURE_BYTES)
    const size = BigInt(of.data.length)
    if (
      openssl.EVP_DigestSignInit(context, 0n, digest, 0n, of.key) !== 1 ||
      openssl.EVP_DigestSign(context, signature, length, of.data, size) !== 1
    )
      throw tokenError('the token did not sign')
    return new Uint8Array(signature.subarray(0, Number(length.readBigUInt64LE())))
  } finally {
    openssl.EVP_MD_CTX_free(context)
  }
}
