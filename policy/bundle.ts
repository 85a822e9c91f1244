/** Bytes -> verified Bundle, or a PolicyError that says which clause failed. Nothing is trusted by its name. */
import { createHash } from 'node:crypto'
import lock from './default/lock.json' with { type: 'json' }
import { canonicalJson } from './canonical.ts'
import type { Input, Point } from './envelope.ts'
import { isSentence } from './catalogue.ts'
import { PolicyError } from './errors.ts'
import { POINTS } from './points.ts'
import { readPaths, readsOf } from './reads.ts'
import type { Reads } from './reads.ts'
import { parseJson, verifyFiles, verifyPermit } from './signature.ts'
import type { PublicKeys, Signed } from './signature.ts'
import { readTar } from './tar.ts'

export type { PublicKeys } from './signature.ts'

/** `builtin` trusts exactly one archive: the one this release was built with. */
export type Trust = 'builtin' | PublicKeys

/** The highest sequence this gateway has ever run, and what it was; null before the first signed bundle. */
export interface HighWater {
  readonly seq: number
  /** SHA-256, hex, of the archive's bytes. */
  readonly digest: string
}

export interface LoadOptions {
  readonly trust: Trust
  readonly highWater: HighWater | null
  /** A downgrade permit (compact JWS) and the time it is shown at, in epoch seconds. */
  readonly permit?: { readonly token: string; readonly now: number }
}

/** A vector carried in the bundle and decided before the bundle is let near a request. */
export interface SmokeVector {
  readonly name: string
  readonly point: Point
  readonly input: Input
  readonly effect: string
  readonly codes: readonly string[]
}

export interface Bundle {
  readonly revision: string
  /** 0 for the built-in one. */
  readonly seq: number
  readonly keyId: string | null
  /** SHA-256, hex, of the archive's bytes. */
  readonly digest: string
  readonly dataDigest: string
  /** Epoch seconds; 0 for the built-in one. */
  readonly issuedAt: number
  /** Seconds after issuedAt at which the bundle counts as stale; 0 never. */
  readonly maxAgeSeconds: number
  readonly wasm: Uint8Array<ArrayBuffer>
  /** data.json as canonical text. */
  readonly dataText: string
  readonly data: unknown
  readonly vectors: readonly SmokeVector[]
  /** By code, what people are told to do next: the site's own sentences. */
  readonly next: ReadonlyMap<string, string>
  /** What its rules read of the input; true (everything) where it brings no sources. */
  readonly reads: Reads
}

/** Where the archive of the default policy lies; the caller reads it. */
export const BUILTIN_BUNDLE = new URL('./default/bundle.tar', import.meta.url)

/** SHA-256, hex, of the archive that trust `builtin` accepts. */
export const builtinDigest: string = lock.bundle_sha256

const MAX_ARCHIVE_BYTES = 16 * 1024 * 1024
const MAX_DATA_BYTES = 1024 * 1024
/** Codes that carry a next step, and the length of one code. */
const MAX_CODES = 1024
const MAX_CODE = 128
const ROOTS = 'policy,sallyport,site,system/log'
const decoder = new TextDecoder()
const ALLOWED =
  /^(?:policy\.wasm|\.manifest|data\.json|\.signatures\.json|[^/].*\.rego|vectors\/[^/]+\.json)$/

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  const parts: Uint8Array[] = []
  let total = 0
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
    for await (const part of stream) {
      total += part.length
      if (total > MAX_ARCHIVE_BYTES) break
      parts.push(part)
    }
  } catch (error) {
    throw new PolicyError('bundle.tar', 'compressed badly', { cause: error })
  }
  if (total > MAX_ARCHIVE_BYTES) throw new PolicyError('bundle.size', 'too long when decompressed')
  return new Uint8Array(Buffer.concat(parts))
}

function required(files: ReadonlyMap<string, Uint8Array>, name: string): Uint8Array {
  const bytes = files.get(name)
  if (bytes === undefined) throw new PolicyError('bundle.missing', name)
  return bytes
}

function record(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new PolicyError('bundle.manifest', `${what} is not an object`)
  return value as Readonly<Record<string, unknown>>
}

function seconds(value: unknown, what: string): number {
  if (!Number.isSafeInteger(value) || Number(value) < 0)
    throw new PolicyError('bundle.manifest', `${what} is not a number of seconds`)
  return Number(value)
}

/** The next steps of the site's codes; a bundle of an earlier release carries none. */
function readNext(given: unknown): ReadonlyMap<string, string> {
  const rows = Object.entries(given === undefined ? {} : record(given, 'next'))
  const [code] =
    rows.find(([name, text]) => name.length > MAX_CODE || !isSentence(text)) ??
    (rows.length > MAX_CODES ? ['the number of codes'] : [])
  if (code !== undefined) throw new PolicyError('bundle.manifest', `next: ${code.slice(0, 256)}`)
  return new Map(rows as [string, string][])
}

function readManifest(bytes: Uint8Array): {
  revision: string
  issuedAt: number
  maxAgeSeconds: number
  next: ReadonlyMap<string, string>
} {
  const manifest = record(parseJson(bytes, '.manifest'), '.manifest')
  const { revision, roots } = manifest
  if (typeof revision !== 'string' || revision === '' || revision.length > 128)
    throw new PolicyError('bundle.manifest', 'no revision')
  if (!Array.isArray(roots) || roots.map(String).toSorted().join(',') !== ROOTS)
    throw new PolicyError('bundle.manifest', `the roots are not ${ROOTS}`)
  const ours = record(record(manifest['metadata'], 'metadata')['sallyport'], 'metadata.sallyport')
  if (ours['input_v'] !== 1) throw new PolicyError('bundle.manifest', 'made for another input')
  const issuedAt = seconds(ours['issued_at'], 'issued_at')
  const maxAgeSeconds = seconds(ours['max_age_s'], 'max_age_s')
  return { revision, issuedAt, maxAgeSeconds, next: readNext(ours['next']) }
}

function readVectors(files: ReadonlyMap<string, Uint8Array>): SmokeVector[] {
  return [...files.keys()]
    .filter((name) => name.startsWith('vectors/'))
    .toSorted()
    .map((file) => {
      const vector = record(parseJson(required(files, file), file), file)
      const { name, point, input, effect, codes } = vector
      const known = typeof point === 'string' && Object.hasOwn(POINTS, point)
      if (!known || typeof name !== 'string' || typeof effect !== 'string' || !Array.isArray(codes))
        throw new PolicyError('bundle.manifest', `${file} is not a vector`)
      return {
        name,
        point: point as Point,
        input: input as Input,
        effect,
        codes: codes.map(String),
      }
    })
}

function readSources(files: ReadonlyMap<string, Uint8Array>): Reads {
  const rego = [...files].filter(([name]) => name.endsWith('.rego'))
  if (rego.length === 0) return true
  return readsOf(readPaths(rego.map(([, bytes]) => decoder.decode(bytes))))
}

/** Whether a permit allows this archive over what is in force. Errors: bundle.permit, bundle.key, bundle.signature. */
function permitted(options: LoadOptions, trust: PublicKeys, seq: number, digest: string): boolean {
  if (options.permit === undefined) return false
  const { token, now } = options.permit
  const permit = verifyPermit(token, trust)
  if (now >= permit.expiresAt) throw new PolicyError('bundle.permit', 'the permit has ended')
  if (permit.over !== options.highWater?.seq)
    throw new PolicyError('bundle.permit', `written for seq ${permit.over} in force`)
  if (permit.seq !== seq || permit.digest !== digest)
    throw new PolicyError('bundle.permit', 'for another archive')
  return true
}

function admit(
  options: LoadOptions,
  digest: string,
  files: ReadonlyMap<string, Uint8Array>,
): Signed {
  const { trust, highWater } = options
  if (trust === 'builtin') {
    if (digest !== builtinDigest)
      throw new PolicyError('bundle.digest', 'not the archive this release was built with')
    if (highWater !== null && highWater.seq > 0)
      throw new PolicyError('bundle.rollback', 'a signed bundle has been in force here')
    return { keyId: '', seq: 0, issuedAt: 0 }
  }
  const signed = verifyFiles(files, trust)
  const older = highWater !== null && signed.seq < highWater.seq
  const other = highWater !== null && signed.seq === highWater.seq && digest !== highWater.digest
  if ((older || other) && !permitted(options, trust, signed.seq, digest))
    throw new PolicyError(
      'bundle.rollback',
      `seq ${signed.seq}; the highest that was ever in force here is ${highWater.seq}`,
    )
  return signed
}

/**
 * Verifies an archive and takes it apart.
 * Takes: tar or tar.gz, at most 16 MB; whom to trust; the high-water mark. Gives: a Bundle whose
 * bytes are copies. Errors (PolicyError): bundle.*; module and data are looked at on activation.
 */
export async function loadBundle(bytes: Uint8Array, options: LoadOptions): Promise<Bundle> {
  if (bytes.length > MAX_ARCHIVE_BYTES) throw new PolicyError('bundle.size', 'longer than 16 MB')
  const archive = new Uint8Array(bytes)
  const digest = sha256(archive)
  const files = readTar(await inflate(archive))
  const strange = [...files.keys()].find((name) => !ALLOWED.test(name))
  if (strange !== undefined) throw new PolicyError('bundle.unexpected', strange)
  const signed = admit(options, digest, files)
  const manifest = readManifest(required(files, '.manifest'))
  const dataBytes = required(files, 'data.json')
  if (dataBytes.length > MAX_DATA_BYTES) throw new PolicyError('bundle.size', 'data beyond 1 MB')
  const data = parseJson(dataBytes, 'data.json')
  const dataText = canonicalJson(data)
  return {
    ...manifest,
    seq: signed.seq,
    keyId: signed.keyId === '' ? null : signed.keyId,
    digest,
    dataDigest: sha256(dataText),
    wasm: new Uint8Array(required(files, 'policy.wasm')),
    dataText,
    data,
    vectors: readVectors(files),
    reads: readSources(files),
  }
}
