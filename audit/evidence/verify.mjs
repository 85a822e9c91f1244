/**
 * Verifies an evidence package of a Sallyport audit log: one file, Node.js alone, no network.
 *
 *     node verify.mjs PACKAGE.zip --key KEYFILE [--device NAME]
 *
 * KEYFILE holds the verifier keys of the log, one a line, from whoever you trust for them: never from the package. Without
 * a key the package may be whole and still be somebody else's; the answer is then 2. Exit: 0 proven, 1 violated (where is
 * said), 2 not provable (why is said).
 *
 * What is checked, in this order:
 *  1. the file itself: every byte of the ZIP is either content with the SHA-256 that manifest.json names, or is what a
 *     ZIP written by Sallyport must have there;
 *  2. the signed heads (c2sp.org/tlog-checkpoint): Ed25519 and ML-DSA-44, every key given must have signed each of them;
 *  3. the events: hashing log/left-edge.json, then every event in order, must give the signed root at every head (RFC
 *     6962). So no event between the first head and the last can be missing, added, changed or moved;
 *  4. the heartbeats: no silence of over 90 s in the time asked for, and each one's set of active sessions is what the
 *     sessions' starts and ends say;
 *  5. the sessions: each was its grant's holder's, to a device and a process the grant names, and began while the grant
 *     was in force: requested, approved by somebody else, neither rejected, revoked, expired nor given back.
 */
import { createHash, createPublicKey, verify as verifySignature } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { crc32, inflateRawSync } from 'node:zlib'

/** A package that does not hold: `place` names the entry and, where there is one, the event. */
class Violated extends Error {
  /** @param {string} place @param {string} what */
  constructor(place, what) {
    super(`${place}: ${what}`)
    this.place = place
  }
}

/** @param {Uint8Array | string} bytes @returns {string} */
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

// ------------------------------------------------------------------ 1. the file

/** @typedef {{ name: string, bytes: Buffer, packed: Buffer }} Entry */

const utf8Names = 0x0800
const dosDate = 0x0021 // 1980-01-01, as every entry has

/**
 * Reads a ZIP that may be nothing but entries, directory and end, each byte as Sallyport writes it.
 * @param {Buffer} zip
 * @returns {Map<string, Entry>}
 */
export function readZip(zip) {
  const end = zip.length - 22
  if (end < 0 || zip.readUInt32LE(end) !== 0x06054b50)
    throw new Violated('zip', 'no end of the directory')
  const count = zip.readUInt16LE(end + 10)
  const directory = zip.readUInt32LE(end + 16)
  expectNumbers(
    zip,
    end + 4,
    [
      [2, 0],
      [2, 0],
      [2, count],
      [2, count],
      [4, end - directory],
      [4, directory],
      [2, 0],
    ],
    'zip end',
  )
  /** @type {Map<string, Entry>} */
  const entries = new Map()
  let at = 0
  let listed = directory
  for (let i = 0; i < count; i++) {
    const { entry, next } = readEntry(zip, at, directory)
    listed = readListed(zip, listed, at, entry)
    if (entries.has(entry.name)) throw new Violated(entry.name, 'stands twice in the ZIP')
    entries.set(entry.name, entry)
    at = next
  }
  if (at !== directory || listed !== end)
    throw new Violated('zip', `bytes that belong to no entry at ${at}`)
  return entries
}

/** @param {Buffer} zip @param {number} at @param {number[][]} fields @param {string} place */
function expectNumbers(zip, at, fields, place) {
  for (const [size = 0, value = 0] of fields) {
    if (at + size > zip.length || zip.readUIntLE(at, size) !== value)
      throw new Violated(place, `byte ${at} is not what a package has there`)
    at += size
  }
}

/** @param {Buffer} zip @param {number} at @param {number} limit @returns {{ entry: Entry, next: number }} */
function readEntry(zip, at, limit) {
  if (at + 30 > limit) throw new Violated('zip', `an entry is cut short at ${at}`)
  const packedSize = zip.readUInt32LE(at + 18)
  const size = zip.readUInt32LE(at + 22)
  const nameSize = zip.readUInt16LE(at + 26)
  const start = at + 30 + nameSize
  const next = start + packedSize
  if (next > limit) throw new Violated('zip', `an entry is cut short at ${at}`)
  const name = zip.toString('utf8', at + 30, start)
  const method = zip.readUInt16LE(at + 8) === 0 ? 0 : 8
  const packed = zip.subarray(start, next)
  /** @type {Buffer} */
  let bytes
  try {
    bytes = method === 0 ? packed : inflateRawSync(packed, { maxOutputLength: size + 1 })
  } catch {
    throw new Violated(name, 'cannot be unpacked')
  }
  if (bytes.length !== size) throw new Violated(name, `${bytes.length} bytes where ${size} belong`)
  expectNumbers(
    zip,
    at,
    [
      [4, 0x04034b50],
      [2, 20],
      [2, utf8Names],
      [2, method],
      [2, 0],
      [2, dosDate],
      [4, crc32(bytes)],
      [4, packedSize],
      [4, size],
      [2, nameSize],
      [2, 0],
    ],
    name,
  )
  return { entry: { name, bytes, packed }, next }
}

/** @param {Buffer} zip @param {number} at @param {number} offset @param {Entry} entry @returns {number} */
function readListed(zip, at, offset, { name, bytes, packed }) {
  const raw = Buffer.from(name)
  const method = zip.readUInt16LE(offset + 8)
  expectNumbers(
    zip,
    at,
    [
      [4, 0x02014b50],
      [2, 20],
      [2, 20],
      [2, utf8Names],
      [2, method],
      [2, 0],
      [2, dosDate],
      [4, crc32(bytes)],
      [4, packed.length],
      [4, bytes.length],
      [2, raw.length],
      [2, 0],
      [2, 0],
      [2, 0],
      [2, 0],
      [4, 0],
      [4, offset],
    ],
    `${name} (directory)`,
  )
  const end = at + 46 + raw.length
  if (zip.compare(raw, 0, raw.length, at + 46, end) !== 0)
    throw new Violated(name, 'the directory names it otherwise')
  return end
}

/**
 * @param {Map<string, Entry>} entries
 * @returns {Record<string, any>} the manifest, its hash and those of all entries checked
 */
function readManifest(entries) {
  const own = entries.get('manifest.json')
  const sum = entries.get('manifest.sha256')
  if (own === undefined || sum === undefined) throw new Violated('manifest.json', 'it is missing')
  if (sum.bytes.toString() !== `${sha256(own.bytes)}  manifest.json\n`)
    throw new Violated('manifest.json', 'its SHA-256 is not the one in manifest.sha256')
  const manifest = JSON.parse(own.bytes.toString())
  const unlisted = new Set(entries.keys())
  unlisted.delete('manifest.json')
  unlisted.delete('manifest.sha256')
  for (const { name, size, sha256: hash, packed_sha256: packedHash } of manifest.entries) {
    const entry = entries.get(name)
    if (entry === undefined) throw new Violated(name, 'the manifest lists it and it is not there')
    if (entry.bytes.length !== size || sha256(entry.bytes) !== hash)
      throw new Violated(name, 'its SHA-256 is not the one in the manifest')
    if (sha256(entry.packed) !== packedHash)
      throw new Violated(name, 'it is packed otherwise than the manifest says')
    unlisted.delete(name)
  }
  for (const name of unlisted) throw new Violated(name, 'the manifest does not list it')
  return manifest
}

// ------------------------------------------------------------------ 2. the signed heads

/** @typedef {{ name: string, id: string, type: number, key: import('node:crypto').KeyObject | null }} Vkey `key` is null where this Node.js does not know the algorithm */

/**
 * Reads a verifier key, `<name>+<key id>+<base64(type || public key)>` (c2sp.org/signed-note).
 * @param {string} line
 * @returns {Vkey}
 */
export function readVkey(line) {
  const [name = '', id = '', ...rest] = line.trim().split('+')
  const material = Buffer.from(rest.join('+'), 'base64')
  const type = material[0] ?? 0
  const pub = material.subarray(1)
  const known = sha256(Buffer.concat([Buffer.from(`${name}\n`), material])).slice(0, 8) === id
  if (!known || (type !== 1 && type !== 6))
    throw new Error(`not a verifier key: ${line.slice(0, 80)}`)
  const jwk =
    type === 1
      ? { kty: 'OKP', crv: 'Ed25519', x: pub.toString('base64url') }
      : { kty: 'AKP', alg: 'ML-DSA-44', pub: pub.toString('base64url') }
  try {
    return {
      name,
      id,
      type,
      key: createPublicKey({ key: /** @type {any} */ (jwk), format: 'jwk' }),
    }
  } catch (error) {
    if (type === 1) throw error
    return { name, id, type, key: null }
  }
}

/** @param {number} value */
function u64(value) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
/** @param {string} text */
const counted = (text) => Buffer.concat([Buffer.of(Buffer.byteLength(text)), Buffer.from(text)])

/**
 * A head: origin, size and root, signed by every key given.
 * @param {string} note @param {Vkey[]} keys @param {string} place
 * @returns {{ origin: string, size: number, root: string }}
 */
function readHead(note, keys, place) {
  const blank = note.indexOf('\n\n')
  const text = note.slice(0, blank + 1)
  const match = /^([^\n]+)\n(0|[1-9]\d{0,15})\n([A-Za-z0-9+/]{43}=)\n$/.exec(text)
  if (match === null) throw new Violated(place, 'not a signed head')
  const [, origin = '', size = '', root64 = ''] = match
  const root = Buffer.from(root64, 'base64')
  const lines = note
    .slice(blank + 2)
    .split('\n')
    .slice(0, -1)
  for (const key of keys) {
    const own = lines
      .map((line) => /^\u2014 (\S+) ([A-Za-z0-9+/]+=*)$/.exec(line))
      .map((line) => ({ name: line?.[1], bytes: Buffer.from(line?.[2] ?? '', 'base64') }))
      .filter(({ name, bytes }) => name === key.name && bytes.toString('hex', 0, 4) === key.id)
    const signature = own.length === 1 ? own[0]?.bytes.subarray(4) : undefined
    if (signature === undefined || holds(key, signature, text, origin, Number(size), root) !== true)
      throw new Violated(place, `the signature of key ${key.id} does not hold`)
  }
  return { origin, size: Number(size), root: root.toString('hex') }
}

/** @param {Vkey} key @param {Buffer} signature @param {string} text @param {string} origin @param {number} size @param {Buffer} root */
function holds(key, signature, text, origin, size, root) {
  if (key.key === null) return true
  if (key.type === 1) return verifySignature(null, Buffer.from(text), key.key, signature)
  const message = Buffer.concat([
    Buffer.from('subtree/v1\n\0'),
    counted(key.name),
    signature.subarray(0, 8),
    counted(origin),
    u64(0),
    u64(size),
    root,
  ])
  return verifySignature(null, message, key.key, signature.subarray(8))
}

/** @param {string} text @returns {string[]} the notes of log/checkpoints: each is followed by a blank line */
function splitHeads(text) {
  const notes = []
  let at = 0
  while (at < text.length) {
    const middle = text.indexOf('\n\n', at)
    const end = middle < 0 ? -1 : text.indexOf('\n\n', middle + 2)
    if (end < 0) throw new Violated('log/checkpoints', 'a head is cut short')
    notes.push(text.slice(at, end + 1))
    at = end + 2
  }
  return notes
}

// ------------------------------------------------------------------ 3. the events

/** @param {Uint8Array} left @param {Uint8Array} right */
const nodeHash = (left, right) =>
  createHash('sha256').update('\u0001').update(left).update(right).digest()
/** @param {Uint8Array} body */
const leafHash = (body) => createHash('sha256').update('\0').update(body).digest()

/** The right edge of the tree of RFC 6962: hashes of perfect subtrees, the largest first. */
class Edge {
  /** @param {number} size @param {Buffer[]} hashes */
  constructor(size, hashes) {
    this.size = size
    this.hashes = hashes
  }
  /** @param {Buffer} leaf */
  push(leaf) {
    let value = leaf
    for (let n = this.size; n % 2 === 1; n = (n - 1) / 2)
      value = nodeHash(/** @type {Buffer} */ (this.hashes.pop()), value)
    this.hashes.push(value)
    this.size++
  }
  root() {
    const [last, ...others] = this.hashes.toReversed()
    if (last === undefined) return sha256('')
    return others.reduce((right, left) => nodeHash(left, right), last).toString('hex')
  }
}

/** @param {number} size how many perfect subtrees its tree has */
const bitsOf = (size) => size.toString(2).replaceAll('0', '').length

/** @typedef {Record<string, any>} Event */
/** @typedef {{ events: Event[], origin: string, first: number, last: number, heads: number }} Proven */

/**
 * Steps 2 and 3. What comes back is proven, under the keys: the events from `first` on, all of them.
 * @param {Map<string, Entry>} entries @param {Vkey[]} keys
 * @returns {Proven}
 */
export function proveEvents(entries, keys) {
  const text = (/** @type {string} */ name) => {
    const entry = entries.get(name)
    if (entry === undefined) throw new Violated(name, 'it is missing')
    return entry.bytes
  }
  const notes = splitHeads(text('log/checkpoints').toString())
  const heads = notes.map((note, i) => readHead(note, keys, `log/checkpoints, head ${i + 1}`))
  const left = JSON.parse(text('log/left-edge.json').toString())
  if (!Number.isSafeInteger(left.size) || left.size < 0 || left.hashes.length !== bitsOf(left.size))
    throw new Violated('log/left-edge.json', 'not the edge of a tree')
  const edge = new Edge(
    left.size,
    left.hashes.map((/** @type {string} */ hash) => Buffer.from(hash, 'hex')),
  )
  const [head, ...rest] =
    left.size === 0
      ? [{ origin: heads[0]?.origin ?? '', size: 0, root: sha256('') }, ...heads]
      : heads
  if (head === undefined || rest.length === 0)
    throw new Violated('log/checkpoints', 'there is no head')
  if (head.size !== left.size || head.root !== edge.root())
    throw new Violated('log/left-edge.json', `its root is not the one signed at ${head.size}`)
  const events = followEvents(
    text('log/events.ndjson'),
    text('log/leaves.txt').toString(),
    edge,
    rest,
  )
  const origin = head.origin
  for (const other of heads)
    if (other.origin !== origin) throw new Violated('log/checkpoints', `a head of ${other.origin}`)
  for (const key of keys)
    if (key.name !== origin)
      throw new Violated('log/checkpoints', `the log is ${origin}, the key is for ${key.name}`)
  for (const [i, event] of events.entries())
    if (event['metadata']?.sequence !== left.size + i || event['metadata']?.log_name !== origin)
      throw new Violated(
        `log/events.ndjson, event ${left.size + i}`,
        'it says that it stands elsewhere',
      )
  return { events, origin, first: left.size, last: edge.size, heads: heads.length }
}

/** @param {Buffer} bytes @param {string} leaves @param {Edge} edge @param {{ size: number, root: string }[]} heads @returns {Event[]} */
function followEvents(bytes, leaves, edge, heads) {
  const hashes = leaves.split('\n').slice(0, -1)
  const events = []
  let matched = edge.size
  let next = 0
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const idx = edge.size
    const end = bytes.indexOf(10, at)
    const body = bytes.subarray(at, end < 0 ? bytes.length : end)
    const leaf = leafHash(body)
    if (hashes[i] !== leaf.toString('hex'))
      throw new Violated(
        `log/events.ndjson, event ${idx}`,
        'its leaf hash is not the one in log/leaves.txt',
      )
    edge.push(leaf)
    const head = heads[next]
    if (head !== undefined && head.size === edge.size) {
      if (head.root !== edge.root())
        throw new Violated(
          `log/events.ndjson, event ${matched} to ${edge.size - 1}`,
          `not the events that the head of size ${head.size} signed`,
        )
      matched = edge.size
      next++
    }
    events.push(JSON.parse(body.toString()))
    at = end < 0 ? bytes.length : end + 1
  }
  if (next !== heads.length || matched !== edge.size || hashes.length !== events.length)
    throw new Violated(
      'log/events.ndjson',
      `${edge.size} events are not the ${heads.at(-1)?.size} that were signed`,
    )
  return events
}

// ------------------------------------------------------------------ 4. the heartbeats

const silenceMs = 90_000
/** A session whose start or end lies this close to a heartbeat may or may not be in it yet. */
const fluxMs = 5_000

/** @param {Event} event @returns {string} */
const code = (event) => event['metadata'].event_code
/** @param {Event} event @returns {Record<string, any>} */
const own = (event) => event['unmapped'].sallyport

/** @typedef {{ from: number, to: number, kind: 'stopped' | 'crashed' | 'silent' | 'before' | 'after', idx: number }} Gap */

/**
 * Times of [from, to] in which no heartbeat says what was active. `stopped` lies between log.close and log.open,
 * `crashed` before a log.open; `silent`, `before` and `after` have no such reason.
 * @param {Event[]} events @param {number} from @param {number} to @returns {Gap[]}
 */
function heartbeatGaps(events, from, to) {
  /** @type {Gap[]} */
  const gaps = []
  /** @type {{ time: number, idx: number } | null} */
  let last = null
  /** @type {'stopped' | 'crashed' | 'silent'} */
  let since = 'silent'
  for (const event of events) {
    const what = code(event)
    if (what === 'log.close') since = 'stopped'
    if (what === 'log.open' && last !== null && since === 'silent') since = 'crashed'
    // An opened log has no session yet: it says as much as a heartbeat does.
    if (what !== 'log.heartbeat' && what !== 'log.open') continue
    const { time } = event
    const idx = event['metadata'].sequence
    if (last === null && time > from + silenceMs) gaps.push({ from, to: time, kind: 'before', idx })
    if (last !== null && time - last.time > silenceMs)
      gaps.push({ from: last.time, to: time, kind: since, idx })
    last = { time, idx }
    since = 'silent'
  }
  const end = last?.time ?? from
  if (to - end > silenceMs) gaps.push({ from: end, to, kind: 'after', idx: last?.idx ?? 0 })
  return gaps.filter((gap) => gap.to >= from && gap.from <= to)
}

/** @typedef {{ id: string, start: Event | null, end: Event | null }} Session */

/** @param {Event[]} events @returns {Map<string, Session>} */
export function sessionsOf(events) {
  /** @type {Map<string, Session>} */
  const sessions = new Map()
  for (const event of events) {
    const id = own(event)['session']
    if (code(event) === 'session.start') sessions.set(id, { id, start: event, end: null })
    if (code(event) !== 'session.end') continue
    const session = sessions.get(id) ?? { id, start: null, end: null }
    session.end = event
    sessions.set(id, session)
  }
  return sessions
}

/** @param {string[]} lines @returns {string} the Merkle root over the sorted lines */
function activeRoot(lines) {
  const edge = new Edge(0, [])
  const sorted = lines.map((line) => Buffer.from(line)).toSorted((a, b) => Buffer.compare(a, b))
  for (const line of sorted) edge.push(leafHash(line))
  return edge.root()
}

/** @param {Event} start @returns {string} */
function activeLine(start) {
  const facts = own(start)
  return [
    facts['session'],
    facts['grant'],
    facts['device'],
    facts['process'],
    facts['party'],
    facts['kind'],
    start['metadata'].sequence,
  ].join('|')
}

/**
 * Whether each heartbeat's set is what starts and ends say. `untold` are those of which a session began before the
 * package does.
 * @param {Event[]} events @param {number} first
 * @returns {{ untold: number[], exceptions: Exception[] }}
 */
function checkActiveSets(events, first) {
  const sessions = [...sessionsOf(events).values()]
  /** @type {number[]} */
  const untold = []
  /** @type {Exception[]} */
  const exceptions = []
  for (const beat of events.filter((event) => code(event) === 'log.heartbeat')) {
    const idx = beat['metadata'].sequence
    const isNear = (/** @type {Event | null} */ event) =>
      event !== null && Math.abs(event['time'] - beat['time']) <= fluxMs
    const begun = sessions.filter(({ start }) => start !== null && start['metadata'].sequence < idx)
    const flux = begun.filter(({ start, end }) => isNear(start) || isNear(end)).slice(0, 12)
    const sure = begun.filter(
      (session) =>
        !flux.includes(session) && (session.end === null || session.end['metadata'].sequence > idx),
    )
    const { active, active_root: root } = own(beat)
    const found = subsets(flux, active - sure.length).some(
      (some) =>
        activeRoot(
          [...sure, ...some].map(({ start }) => activeLine(/** @type {Event} */ (start))),
        ) === root,
    )
    if (found) continue
    // Sessions that began before the package's first event are in the set and cannot be named here.
    const early = sessions.some(
      ({ start, end }) => start === null && end?.['metadata'].sequence > idx,
    )
    if (first > 0 && (early || active > sure.length + flux.length)) untold.push(idx)
    else
      exceptions.push({
        idx,
        what: 'this heartbeat commits to other active sessions than the starts and ends show',
      })
  }
  return { untold, exceptions }
}

/** @template T @param {T[]} items @param {number} size @returns {T[][]} */
function subsets(items, size) {
  if (size < 0 || size > items.length) return []
  if (size === 0) return [[]]
  const [head, ...rest] = items
  return [
    ...subsets(rest, size - 1).map((some) => [/** @type {T} */ (head), ...some]),
    ...subsets(rest, size),
  ]
}

// ------------------------------------------------------------------ 5. grants and sessions

/**
 * @typedef {{ id: string, requester: string, who: string, devices: string[], processes: string[], notBefore: number, notAfter: number, reason: string, ticket: string,
 *   approvals: { by: string, who: string, time: number, idx: number }[], rejections: { who: string, idx: number }[], needed: number, requestIdx: number, activated: number | null, ended: { time: number, how: string, by: string, idx: number } | null }} Grant
 */

/** After any of these a grant opens nothing more: refused, taken back, run out, given back. */
const endings = ['grant.reject', 'grant.revoke', 'grant.expire', 'grant.burn']

/** @param {Event} event */
const whoOf = (event) => event['actor']?.user?.name ?? event['actor']?.user?.uid ?? 'the gateway'

/** @param {Event[]} events @returns {Map<string, Grant>} every grant that was requested, and what became of it */
function grantsOf(events) {
  /** @type {Map<string, Grant>} */
  const grants = new Map()
  for (const event of events) {
    const what = code(event)
    if (!what.startsWith('grant.')) continue
    const facts = own(event)
    const idx = event['metadata'].sequence
    if (what === 'grant.request' && event['status_id'] === 1) {
      grants.set(facts['grant'], {
        id: facts['grant'],
        requester: event['actor']?.user?.uid ?? '',
        who: whoOf(event),
        devices: facts['devices'] ?? [facts['device']],
        processes: facts['processes'] ?? [facts['process']],
        notBefore: (facts['not_before'] ?? 0) * 1000,
        notAfter: (facts['not_after'] ?? Number.MAX_SAFE_INTEGER / 1000) * 1000,
        reason: facts['reason_given'] ?? '',
        ticket: facts['ticket'] ?? '',
        approvals: [],
        rejections: [],
        needed: facts['approvals_needed'] ?? 0,
        requestIdx: idx,
        activated: null,
        ended: null,
      })
      continue
    }
    const grant = grants.get(facts['grant'])
    if (grant === undefined || event['status_id'] !== 1) continue
    const person = {
      by: event['actor']?.user?.uid ?? '',
      who: whoOf(event),
      time: event['time'],
      idx,
    }
    if (what === 'grant.approve') grant.approvals.push(person)
    if (what === 'grant.reject') grant.rejections.push(person)
    if (what === 'grant.activate') grant.activated = event['time']
    if (what === 'grant.extend' && facts['not_after'] !== undefined)
      grant.notAfter = facts['not_after'] * 1000
    if (endings.includes(what))
      grant.ended ??= { time: event['time'], how: what.slice(6), by: whoOf(event), idx }
  }
  return grants
}

/** @typedef {{ idx: number, what: string }} Exception */

/**
 * How a session does not agree with the grant it began under.
 * @param {Event} start @param {Grant} grant @returns {string[]}
 */
function faultsOf(start, grant) {
  const idx = start['metadata'].sequence
  const { device, process } = own(start)
  const faults = []
  const before = grant.approvals.filter((approval) => approval.idx < idx)
  if (before.some(({ by }) => by === grant.requester))
    faults.push('its grant was approved by who requested it')
  if (new Set(before.map(({ by }) => by)).size < grant.needed)
    faults.push(`its grant had ${before.length} of ${grant.needed} approvals`)
  if (!grant.devices.includes(device)) faults.push(`its grant is not for ${device}`)
  if (!grant.processes.includes(process)) faults.push(`its grant is not for the process ${process}`)
  if ((start['actor']?.user?.uid ?? '') !== grant.requester)
    faults.push(`its grant is ${grant.who}\u2019s, and ${whoOf(start)} used it`)
  if (start['time'] < grant.notBefore - fluxMs || start['time'] > grant.notAfter + fluxMs)
    faults.push('it began outside the time of its grant')
  if (grant.ended !== null && grant.ended.idx < idx)
    faults.push(`its grant had ended (${grant.ended.how})`)
  return faults
}

/**
 * What should not be: sessions outside their grant, approvals by the requester, sessions without a known grant.
 * @param {Event[]} events @param {number} first
 * @returns {{ exceptions: Exception[], untold: string[] }}
 */
export function checkGrants(events, first) {
  const grants = grantsOf(events)
  /** @type {Exception[]} */
  const exceptions = []
  const untold = []
  for (const { id, start } of sessionsOf(events).values()) {
    if (start === null) {
      if (first === 0) exceptions.push({ idx: -1, what: `session ${id} ended and never began` })
      continue
    }
    const idx = start['metadata'].sequence
    const grant = grants.get(own(start)['grant'])
    const bad = (/** @type {string} */ what) =>
      exceptions.push({ idx, what: `session ${id}: ${what}` })
    if (grant === undefined) {
      if (first > 0)
        untold.push(
          `the grant ${own(start)['grant']} of session ${id} was requested before event ${first}`,
        )
      else bad('its grant was never requested')
      continue
    }
    for (const fault of faultsOf(start, grant)) bad(fault)
  }
  return { exceptions, untold }
}

// ------------------------------------------------------------------ the verdict

/**
 * @typedef {{ outcome: 'proven' | 'not-provable', words: string, gaps: Gap[], recoveries: { idx: number, time: number, message: string }[], exceptions: Exception[], untold: string[] }} Judgement
 */

/**
 * What can be said of [from, to], epoch ms, by events that are proven.
 * @param {Proven} proven @param {number} from @param {number} to
 * @returns {Judgement}
 */
export function judge({ events, first }, from, to) {
  const gaps = heartbeatGaps(events, from, to)
  const silent = gaps.filter(({ kind }) => kind !== 'stopped' && kind !== 'crashed')
  const beats = checkActiveSets(events, first)
  const { exceptions, untold } = checkGrants(events, first)
  exceptions.push(...beats.exceptions)
  const all = [
    ...untold,
    ...beats.untold.map(
      (idx) => `the heartbeat ${idx} names sessions that began before event ${first}`,
    ),
  ]
  const recoveries = events
    .filter(
      (event) =>
        ['log.recovered', 'log.prune'].includes(code(event)) &&
        event['time'] >= from &&
        event['time'] <= to,
    )
    .map((event) => ({
      idx: event['metadata'].sequence,
      time: event['time'],
      message: event['message'],
    }))
  const provable = silent.length === 0 && all.length === 0
  const listed = recoveries.length > 0 || gaps.length > 0
  return {
    outcome: provable ? 'proven' : 'not-provable',
    words: provable ? (listed ? 'complete with listed recoveries' : 'complete') : 'not provable',
    gaps,
    recoveries,
    exceptions,
    untold: all,
  }
}

/**
 * Who could reach a device, who did, on whose approval, doing what: [from, to] in epoch ms; every device without a name.
 * @param {Event[]} events @param {number} from @param {number} to @param {string} [device]
 */
export function answer(events, from, to, device) {
  const grants = [...grantsOf(events).values()].filter(
    (grant) =>
      (device === undefined || grant.devices.includes(device)) &&
      grant.requestIdx >= 0 &&
      grant.notBefore <= to &&
      grant.notAfter >= from &&
      (grant.ended === null || grant.ended.time >= from) &&
      (grant.activated ?? Number.POSITIVE_INFINITY) <= to,
  )
  const about = events.filter((event) => device === undefined || own(event)['device'] === device)
  const inside = about.filter((event) => event['time'] >= from && event['time'] <= to)
  const sessions = [...sessionsOf(about).values()].filter(
    ({ start, end }) =>
      (start?.['time'] ?? 0) <= to && (end?.['time'] ?? Number.POSITIVE_INFINITY) >= from,
  )
  const acts = new Map()
  for (const event of events) {
    const id = own(event)['session']
    if (
      !['ot.write', 'ot.deny', 'ot.violation', 'http.request'].includes(code(event)) ||
      id === undefined
    )
      continue
    acts.set(id, [...(acts.get(id) ?? []), event])
  }
  return {
    grants,
    sessions: sessions.map((session) => ({
      ...session,
      acts: /** @type {Event[]} */ (acts.get(session.id) ?? []),
    })),
    denied: inside.filter(
      (event) =>
        code(event) === 'session.deny' ||
        (code(event) === 'grant.request' && event['status_id'] === 2),
    ),
    cuts: inside.filter((event) =>
      [
        'session.kill',
        'session.lock',
        'session.unlock',
        'device.quarantine',
        'grant.revoke',
        'cert.revoke',
      ].includes(code(event)),
    ),
  }
}

/** @param {number} n @param {string} noun */
export const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`
/** @param {number} ms */
const timeText = (ms) => new Date(ms).toISOString().replace('T', ' ').replace('.000Z', 'Z')

/** @param {Buffer} zip @param {string[]} vkeys @param {string} [device] @returns {{ exit: number, lines: string[] }} */
export function verifyPackage(zip, vkeys, device) {
  try {
    const entries = readZip(zip)
    const manifest = readManifest(entries)
    const keys = vkeys.map(readVkey)
    const proven = proveEvents(entries, keys)
    const [from, to] = [Date.parse(manifest['from']), Date.parse(manifest['to'])]
    const judged = judge(proven, from, to)
    const stated = manifest['verdict']
    if (stated.words !== judged.words || stated.outcome !== judged.outcome)
      throw new Violated('manifest.json', `it says ${stated.words}, the events say ${judged.words}`)
    const lines = report(manifest, proven, judged, device, from, to)
    if (judged.exceptions.length > 0)
      return {
        exit: 1,
        lines: ['VIOLATED: the log is as it was signed, and says what should not be', ...lines],
      }
    for (const { id, key } of keys)
      if (key === null)
        lines.unshift(
          `this Node.js knows no ML-DSA-44: the signatures of key ${id} were not checked`,
        )
    if (keys.some(({ key }) => key !== null))
      return { exit: judged.outcome === 'proven' ? 0 : 2, lines }
    return {
      exit: 2,
      lines: [
        'INTACT, ORIGIN NOT PINNED: no --key was given, so this may be anybody\u2019s log',
        ...lines,
      ],
    }
  } catch (error) {
    if (error instanceof Violated)
      return { exit: 1, lines: [`VIOLATED at ${error.place}`, error.message] }
    return {
      exit: 1,
      lines: [
        'VIOLATED: the package cannot be read',
        error instanceof Error ? error.message : String(error),
      ],
    }
  }
}

/** @param {Record<string, any>} manifest @param {Proven} proven @param {Judgement} judged @param {string | undefined} device @param {number} from @param {number} to */
function report(manifest, proven, judged, device, from, to) {
  const lines = [
    `${judged.outcome === 'proven' ? 'PROVEN' : 'NOT PROVABLE'}: ${judged.words}`,
    `log ${proven.origin}, events ${proven.first} to ${proven.last - 1}, ${proven.heads} signed heads`,
    `asked for ${manifest['from']} to ${manifest['to']}`,
    ...judged.gaps.map(
      (gap) =>
        `${gap.kind === 'stopped' || gap.kind === 'crashed' ? 'listed' : 'GAP'}: no heartbeat from ${timeText(gap.from)} to ${timeText(gap.to)} (${gap.kind}, event ${gap.idx})`,
    ),
    ...judged.recoveries.map(
      ({ idx, time, message }) => `recovery: event ${idx}, ${timeText(time)}: ${message}`,
    ),
    ...judged.untold.map((what) => `cannot be told: ${what}`),
    ...judged.exceptions.map(({ idx, what }) => `EXCEPTION: event ${idx}: ${what}`),
    judged.exceptions.length === 0
      ? 'every session began under a grant in force, approved by others than its requester'
      : '',
  ]
  const { grants, sessions, denied, cuts } = answer(proven.events, from, to, device)
  lines.push(
    `who could${device === undefined ? '' : ` reach ${device}`}: ${count(grants.length, 'grant')}`,
  )
  for (const grant of grants)
    lines.push(
      `  ${grant.who}: ${grant.devices.join(', ')} ${grant.processes.join(', ')}, ${timeText(grant.notBefore)} to ${timeText(grant.ended?.time ?? grant.notAfter)}, approved by ${grant.approvals.map(({ who }) => who).join(', ') || 'nobody: policy asked for none'} (${grant.id}, event ${grant.requestIdx})`,
    )
  lines.push(`who did: ${count(sessions.length, 'session')}`)
  for (const { id, start, end, acts } of sessions)
    lines.push(
      `  ${start === null ? 'began before the package' : `${whoOf(start)} on ${own(start)['device']}/${own(start)['process']}`}, ${start === null ? '' : timeText(start['time'])} to ${end === null ? 'open at the end' : timeText(end['time'])}, ${end === null ? '' : `${own(end)['bytes_in'] ?? '?'} bytes in, ${own(end)['bytes_out'] ?? '?'} out, ${own(end)['reason']}`}, ${acts.length} recorded acts (${id})`,
    )
  lines.push(`refused: ${denied.length}; cut, locked or revoked: ${cuts.length}`)
  return lines.filter((line) => line !== '')
}

/** @param {string[]} args */
function main(args) {
  const zips = []
  const keys = []
  let device
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '--key') keys.push(args[++i] ?? '')
    else if (arg === '--device') device = args[++i]
    else zips.push(arg)
  }
  const [zip, more] = zips
  if (zip === undefined || more !== undefined || zip.startsWith('-')) {
    console.error('node verify.mjs PACKAGE.zip --key KEYFILE [--device NAME]')
    return 2
  }
  const vkeys = keys.flatMap((key) =>
    (/^\S+\+[0-9a-f]{8}\+\S+$/.test(key) ? key : readFileSync(key, 'utf8'))
      .split('\n')
      .filter((line) => line.trim() !== '' && line[0] !== '#'),
  )
  const { exit, lines } = verifyPackage(readFileSync(zip), vkeys, device)
  for (const line of lines) console.log(line)
  return exit
}

const started = process.argv[1]
if (started !== undefined && realpathSync(started) === fileURLToPath(import.meta.url))
  process.exitCode = main(process.argv.slice(2))
