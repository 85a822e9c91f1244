/**
 * Mutates requests value by value and signs them again, so that a mutation gets past the signature.
 * Whatever our reader accepts must be accepted by two others: node:crypto for the key, asn1js by way
 * of @peculiar/x509 for the whole, and, where the program is there, openssl for a sample. Whatever it
 * refuses must be refused by a CaError of the far side, quickly. Memory stays bounded.
 */
import 'reflect-metadata'
import { spawnSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { Pkcs10CertificateRequest } from '@peculiar/x509'
import { CaError, EST_BODY_LIMIT } from '#ca'
import { provePossession, readCsr } from '../../ca/csr.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { readDer, TAG, type DerNode } from '../../ca/der/reader.ts'
import { bitString, sequence, tlv } from '../../ca/der/writer.ts'
import { readApplicant } from '../../ca/applicant.ts'
import { challenge, deviceSan, named, request } from '../ca/requests.ts'

/** mulberry32: small, seeded, good enough to choose with. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}
type Pick = ReturnType<typeof generator>

/** A tree that can be changed and written, faults included. */
interface Piece {
  tag: number
  value: Uint8Array
  children: Piece[]
  /** Replaces the length octets. */
  length?: Uint8Array
}
function pieceOf(node: DerNode): Piece {
  return { tag: node.tag, value: node.value, children: node.children.map(pieceOf) }
}
function write(piece: Piece): Uint8Array {
  const inner = piece.children.length > 0 ? Buffer.concat(piece.children.map(write)) : piece.value
  if (piece.length === undefined) return tlv(piece.tag, inner)
  return Uint8Array.of(piece.tag, ...piece.length, ...inner)
}
function all(piece: Piece): Piece[] {
  return [piece, ...piece.children.flatMap(all)]
}

const LENGTHS = [0, 1, 127, 128, 129, 255, 256, 257, 1_000]
const TAGS = [
  0, 1, 2, 3, 4, 5, 6, 0x0c, 0x10, 0x13, 0x16, 0x17, 0x1e, 0x1f, 0x30, 0x31, 0x80, 0xa0, 0xa3, 0xff,
]
const FALSE_LENGTHS = ['80', '81', '8100', '820001', '84ffffffff', '8500000000ff', 'ff', '00', '7f']

type Mutation = (target: Piece, pick: Pick) => void
function filled(length: number, pick: Pick): Uint8Array {
  return Uint8Array.from({ length }, () => pick(256))
}
const mutations: readonly Mutation[] = [
  (target, pick) => void (target.tag = TAGS[pick(TAGS.length)]!),
  (target, pick) => void (target.tag ^= 1 << pick(8)),
  (target, pick) => {
    target.value = filled(LENGTHS[pick(LENGTHS.length)]!, pick)
    target.children = []
  },
  (target, pick) => {
    const value = Uint8Array.from(target.value)
    if (value.length > 0) value[pick(value.length)]! ^= 1 << pick(8)
    target.value = value
    if (pick(2) === 0) target.children = []
  },
  (target, pick) => {
    target.value = target.value.subarray(0, pick(target.value.length + 1))
    target.children = []
  },
  (target) => void (target.value = Uint8Array.of(0, ...target.value)),
  (target, pick) =>
    void (target.length = Uint8Array.fromHex(FALSE_LENGTHS[pick(FALSE_LENGTHS.length)]!)),
  (target, pick) => void target.children.splice(pick(target.children.length + 1), 1),
  (target, pick) => {
    const child = target.children[pick(target.children.length || 1)]
    if (child !== undefined) target.children.push(structuredClone(child))
  },
  (target) => void target.children.reverse(),
  (target, pick) => {
    const inner = { tag: target.tag, value: target.value, children: target.children }
    target.tag = pick(2) === 0 ? TAG.sequence : TAG.set
    target.children = [inner]
  },
  (target, pick) => {
    let inner: Piece = { tag: TAG.null, value: new Uint8Array(), children: [] }
    for (let depth = pick(40); depth > 0; depth--)
      inner = { tag: TAG.sequence, value: new Uint8Array(), children: [inner] }
    target.children.push(inner)
  },
  (target, pick) => {
    for (let count = pick(600); count > 0; count--)
      target.children.push({ tag: TAG.integer, value: Uint8Array.of(1), children: [] })
  },
]

interface Seed {
  readonly info: Uint8Array
  readonly key: KeyObject
  readonly algorithm: Uint8Array
  readonly hash: string | null
}
function seeds(): Seed[] {
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const edwards = generateKeyPairSync('ed25519').privateKey
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  const attributes = [deviceSan('press-07'), challenge('YWJj')]
  const of = (key: KeyObject, algorithm: Uint8Array, hash: string | null): Seed => {
    const whole = readDer(request({ key, hash, attributes, subject: named('press-07') }))
    return { info: whole.children[0]!.bytes, key, algorithm, hash }
  }
  const usual = of(ec, sequence(oid(OID.ecdsaSha256)), 'sha256')
  const other = of(edwards, sequence(oid(OID.ed25519)), null)
  // RSA signs fifty times slower and has no more structure: one case in seven.
  const slow = of(rsa, sequence(oid(OID.rsaSha256), tlv(TAG.null)), 'sha256')
  return [usual, usual, usual, other, other, other, slow]
}

function mutate(seed: Seed, pick: Pick): Uint8Array {
  const info = pieceOf(readDer(seed.info))
  for (let left = 1 + pick(3); left > 0; left--) {
    const pieces = all(info)
    mutations[pick(mutations.length)]!(pieces[pick(pieces.length)]!, pick)
  }
  const changed = write(info)
  // A few mutations spoil what is around the signed part instead.
  const signature = new Uint8Array(sign(seed.hash, changed, seed.key))
  if (pick(10) > 0) return sequence(changed, seed.algorithm, bitString(signature))
  const whole = pieceOf(readDer(sequence(seed.info, seed.algorithm, bitString(signature))))
  const pieces = [whole, ...whole.children.slice(1)]
  mutations[pick(mutations.length)]!(pieces[pick(pieces.length)]!, pick)
  return write(whole)
}

function hasOpenssl(): boolean {
  return spawnSync('openssl', ['version']).status === 0
}
function opensslAccepts(der: Uint8Array): boolean {
  return (
    spawnSync('openssl', ['req', '-inform', 'DER', '-verify', '-noout'], { input: der }).status ===
    0
  )
}

function crossCheck(der: Uint8Array, spki: Uint8Array): void {
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  if (!key.export({ type: 'spki', format: 'der' }).equals(spki))
    throw new Error('the key is not in its canonical encoding')
  const other = new Pkcs10CertificateRequest(der)
  if (!Buffer.from(other.publicKey.rawData).equals(spki))
    throw new Error('another reader sees another key')
}

/** What fits into a body of EST_BODY_LIMIT; anything longer never reaches the reader. */
const LONGEST = Math.floor(EST_BODY_LIMIT / 4) * 3
const OPENSSL_SAMPLE = 200
/** CPU time of this thread: other processes do not count. The design wants 5; a first call compiles. */
const SLOWEST_MS = 50

/**
 * Runs `cases` mutations from `seed`. Throws with the case's bytes in hex when our reader accepts
 * what another refuses, throws anything but a CaError of the far side, or takes too long.
 */
export async function fuzz({
  cases,
  seed,
}: {
  cases: number
  seed: number
}): Promise<{ cases: number }> {
  const pick = generator(seed)
  const sources = seeds()
  const before = process.memoryUsage.rss()
  let openssl = hasOpenssl() ? OPENSSL_SAMPLE : 0
  for (let number = 0; number < cases; number++) {
    const der = mutate(sources[pick(sources.length)]!, pick).subarray(0, LONGEST)
    const started = process.threadCpuUsage()
    let spki: Uint8Array | undefined
    try {
      spki = accepted(der)
      if (spki !== undefined) crossCheck(der, spki)
      if (spki !== undefined && openssl-- > 0 && !opensslAccepts(der))
        throw new Error('openssl refuses it')
    } catch (cause) {
      throw new Error(`case ${number} of seed ${seed}: ${Buffer.from(der).toString('hex')}`, {
        cause,
      })
    }
    const { user, system } = process.threadCpuUsage(started)
    const took = (user + system) / 1_000
    if (spki === undefined && took > SLOWEST_MS)
      throw new Error(`case ${number}: refused after ${took} ms`)
    if (number % 5_000 === 4_999) requireBounded(before)
    // Lets a caller's timers and signals through.
    if (number % 500 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  return { cases }
}

/** What a run may add to what is held, however long it is: a case that stays in memory is a way in. */
const MOST_GROWTH = 384 * 1_024 * 1_024

function requireBounded(before: number): void {
  const grown = process.memoryUsage.rss() - before
  if (grown > MOST_GROWTH) throw new Error(`${Math.round(grown / 1_048_576)} MiB more are in use`)
}

function accepted(der: Uint8Array): Uint8Array | undefined {
  try {
    const csr = readCsr(der)
    provePossession(csr)
    // The same through the body, as a client sends it.
    return readApplicant(Buffer.from(Buffer.from(der).toString('base64'))).spki
  } catch (error) {
    if (error instanceof CaError && error.fault === 'remote') return undefined
    throw error
  }
}
