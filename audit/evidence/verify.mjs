/**
 * Verifies an evidence package of a Sallyport audit log: one file, Node.js alone, no network.
 *
 *     node verify.mjs PACKAGE.zip --key KEYFILE [--device NAME] [--node NAME ...]
 *
 * KEYFILE holds the verifier keys of the log, one a line, from whoever you trust for them: never from the package. Without
 * a key the package may be whole and still be somebody else's; the answer is then 2. Where the log's keys were replaced in
 * that time the package holds several epochs: give the keys of the newest, which prove all before it. Exit: 0 proven, 1 violated (where is said),
 * 2 not provable (why is said). A package of a site has a log of each of its gateways: give the keys of all of them, and with
 * --node the gateways that the site has as you know it. One whose log is not in the package is named, and nothing is then complete.
 *
 * What is checked, in this order:
 *  1. the file itself: every byte of the ZIP is either content with the SHA-256 that manifest.json names, or is what a
 *     ZIP written by Sallyport must have there;
 *  2. the signed heads (c2sp.org/tlog-checkpoint): Ed25519 and ML-DSA-44, every key given must have signed each of them;
 *  3. the events: hashing log/left-edge.json, then every event in order, must give the signed root at every head (RFC
 *     6962). So no event between that edge and the last head can be missing, added, changed or moved. That the package
 *     begins early enough for the time asked for, and does not end before it does, is checked too. Of several epochs each is checked so, from its first to its
 *     very last event, and that they are one log: the last event of one, under its keys, names the next and the keys of that,
 *     and the first event of the next, under those, holds the last head of the one before, its size and its root. One that
 *     ended later than what is here of it must be shown, by consistency.json, to begin with that. All of it must follow from
 *     the newest keys given: those of ended epochs may have come to others since;
 *  4. the heartbeats: no silence of over 90 s in the time asked for, and each one's set of active sessions is what the
 *     sessions' starts and ends say;
 *  5. the sessions: each was its grant's holder's, to a device and a process the grant names, and began while the grant
 *     was in force: requested, approved by somebody else, neither rejected, revoked, expired nor given back. An event stands
 *     in the log before its act, so an event behind it may say that the act was not done, or that nobody knows: such a
 *     revocation, lock or approval is called that, and not done;
 *  6. the recordings: each session that had to be recorded has an end of its recording, whose parts are all there, in
 *     order, and hash to the root that the session's own end names. The files themselves are not in the package:
 *     `sallyport recording verify` compares them;
 *  7. manifest.note, where there is one: that whoever holds the log's own keys made this very package;
 *  8. what people read: report.html, the CSV and JSON files, README.txt and manifest.json are made anew from the proven
 *     events and must be the same to the byte. Each file is listed with what it is worth. Take this program from whoever
 *     you trust, not from the package: a forger may have changed the one in there.
 *
 * Of a site each log lies in a folder of its own, nodes/<gateway>/, and is put through 2 to 4 by itself, with the reader's keys of
 * that log alone. Only then are the events laid together in order of time, each with its gateway: a grant that was approved at
 * one lets in at another, so 5 asks all of them. Where the order of two events of different gateways matters, their clocks are
 * taken to differ by no more than 5 s.
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
    this.what = what
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
  const names = new Set()
  let at = 0
  let listed = directory
  for (let i = 0; i < count; i++) {
    const { entry, next } = readEntry(zip, at, directory)
    listed = readListed(zip, listed, at, entry)
    // Where capitals count for nothing one would be unpacked over the other.
    if (names.has(entry.name.toLowerCase()))
      throw new Violated(entry.name, 'stands twice in the ZIP')
    names.add(entry.name.toLowerCase())
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

/**
 * Letters, digits and marks that mean the same wherever it is unpacked: no way up, no root, no other way to write one.
 * @param {string} name
 */
const isPlainName = (name) =>
  name.split('/').every((part) => /^[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?$/.test(part))

/** Throws for what is no stream, is larger than it says, or has bytes behind its end. @param {Buffer} packed @param {number} size */
function unpack(packed, size) {
  const made = /** @type {{ buffer: Buffer, engine: { bytesWritten: number } }} */ (
    /** @type {unknown} */ (inflateRawSync(packed, { maxOutputLength: size + 1, info: true }))
  )
  if (made.engine.bytesWritten !== packed.length) throw new Error('bytes behind its end')
  return made.buffer
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
    bytes = method === 0 ? packed : unpack(packed, size)
  } catch {
    throw new Violated(name, 'cannot be unpacked')
  }
  if (!isPlainName(name)) throw new Violated(name, 'no file of a package has such a name')
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
  unlisted.delete('manifest.note')
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

/** @typedef {{ vkey: string, name: string, id: string, type: number, key: import('node:crypto').KeyObject | null }} Vkey `vkey` is its whole text; `key` is null where this Node.js does not know the algorithm */

/**
 * Reads a verifier key, `<name>+<key id>+<base64(type || public key)>` (c2sp.org/signed-note).
 * @param {string} line
 * @returns {Vkey}
 */
export function readVkey(line) {
  const vkey = line.trim()
  const [name = '', id = '', ...rest] = vkey.split('+')
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
      vkey,
      name,
      id,
      type,
      key: createPublicKey({ key: /** @type {any} */ (jwk), format: 'jwk' }),
    }
  } catch (error) {
    if (type === 1) throw error
    return { vkey, name, id, type, key: null }
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

/** @param {string} text @param {string} place @returns {string[]} the notes of log/checkpoints: each is followed by a blank line */
function splitHeads(text, place) {
  const notes = []
  let at = 0
  while (at < text.length) {
    const middle = text.indexOf('\n\n', at)
    const end = middle < 0 ? -1 : text.indexOf('\n\n', middle + 2)
    if (end < 0) throw new Violated(place, 'a head is cut short')
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

/**
 * The roots of the first `size` events and of all `whole` ones that a consistency proof leads to. RFC 9162 2.1.4.2.
 * @param {number} size more than 0 @param {number} whole more than `size` @param {Buffer[]} path the proof, its first hash never left out
 * @returns {string[] | null} null: it is not as long as such a proof is
 */
function rootsOf(size, whole, [first, ...path]) {
  if (first === undefined) return null
  let [at, last] = [size - 1, whole - 1]
  const up = () => {
    at = Math.floor(at / 2)
    last = Math.floor(last / 2)
  }
  while (at % 2 === 1) up()
  let [old, all] = [first, first]
  for (const hash of path) {
    if (last === 0) return null
    if (at % 2 === 1 || at === last) {
      old = nodeHash(hash, old)
      all = nodeHash(hash, all)
      while (at % 2 === 0 && at !== 0) up()
    } else all = nodeHash(all, hash)
    up()
  }
  return last === 0 ? [old.toString('hex'), all.toString('hex')] : null
}

/** @param {number} size how many perfect subtrees its tree has */
const bitsOf = (size) => size.toString(2).replaceAll('0', '').length

/**
 * @typedef {Record<string, any>} Event
 *   an event as it was logged, with `at`, where it stands in the package, counted over all epochs; `epoch`, its epoch's
 *   number where there are several, else null; and, on what was not done after all, `undone`, the event that says so
 * @typedef {{ node?: string, epoch: number | null, idx: number }} Where an event's place: `epoch` only where there are several,
 *   `node` only in a package of a site
 * @typedef {{ origin: string, epoch: number | null, first: number, last: number, heads: number, predecessor: string | null, successor: string | null }} Epoch
 *   one log: its events from `first` to before `last`, and the logs that it goes on from and goes on as, by its own first
 *   and last event
 * @typedef {{ node: string, proven: Proven }} Log one gateway's, proven by itself
 * @typedef {{ logs: Log[], named: string[], absent: string[] }} Site
 *   the gateways whose logs are here, those that the site has as whoever made the package named them, and which of these are not here
 * @typedef {{ events: Event[], epochs: Epoch[], links: string[], early: boolean, pinned: boolean, doubts: string[], files: Map<string, boolean>, keys: Map<string, Vkey[]>, site: Site | null }} Proven
 *   `links`: epochs of which only the beginning or the end is here, for the keys it names; `early`: something came before the
 *   first event; `pinned`: every epoch shown is proven under keys that the reader brought, or that one so proven names;
 *   `doubts`: what keeps this from being proven under the newest of those keys;
 *   `files`: what was read, and whether it is so proven; `keys`: those keys, by the log they are of; `site`: of a package of
 *   several gateways, all of whose events are then in `events`, in order of time
 * @typedef {{ keys: string[], successor?: string, predecessor?: string, note?: string }} Joint what an end or a beginning says
 * @typedef {{ folder: string, origin: string, epoch: number | null, notes: string[], left: { size: number, hashes: string[] }, bytes: Buffer, leaves: string, opening: Joint | null, closing: Joint | null, consistency: string | null }} Part
 *   one epoch as it lies in the package, nothing of it proven yet; `consistency`: of one that is here up to before its end,
 *   the proof that what the next one holds of it begins with just that
 */

const epochForm = /^(.*\/)([1-9]\d{0,8})$/
/** @param {string} origin what all epochs of one log have in common */
const stemOf = (origin) => epochForm.exec(origin)?.[1] ?? origin

/**
 * The folders of the package's epochs: `log/` where there is one, else `log/<epoch>/`, none left out between two.
 * @param {Map<string, Entry>} entries @returns {string[]}
 */
function foldersOf(entries) {
  if (entries.has('log/checkpoints')) return ['log/']
  const epochs = [...entries.keys()]
    .flatMap((name) => /^log\/([1-9]\d{0,8})\/checkpoints$/.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b)
  const [oldest] = epochs
  if (oldest === undefined) throw new Violated('log/checkpoints', 'it is missing')
  epochs.forEach((epoch, i) => {
    if (epoch !== oldest + i) throw new Violated(`log/${oldest + i}/`, 'this epoch is left out')
  })
  return epochs.map((epoch) => `log/${epoch}/`)
}

/**
 * The folders of epochs that are no part of what is shown: of each a few events, with what it says of the keys of the epoch
 * next to it, so that keys of any epoch will do.
 * @param {Map<string, Entry>} entries @returns {string[]}
 */
const linkFolders = (entries) =>
  [...entries.keys()].flatMap(
    (name) => /^(log\/keys\/[1-9]\d{0,8}\/)checkpoints$/.exec(name)?.[1] ?? [],
  )

/** @param {Part} part */
const numberOf = ({ origin }) => Number(epochForm.exec(origin)?.[2])

/**
 * The epochs shown with those that only name keys, the first one first, none left out.
 * @param {Part[]} parts @param {Part[]} links @returns {Part[]}
 */
function chainOf(parts, links) {
  if (links.length === 0) return parts
  const chain = [...parts, ...links].toSorted((a, b) => numberOf(a) - numberOf(b))
  chain.forEach((part, i) => {
    const before = chain[i - 1]
    if (before !== undefined && numberOf(part) !== numberOf(before) + 1)
      throw new Violated(`${part.folder}checkpoints`, 'the epoch before it is left out')
  })
  return chain
}

/** What an event says of the epoch next to its own; null: it is no such event. @param {Buffer} line @param {string} name @returns {Joint | null} */
function jointIn(line, name) {
  if (line.length === 0) return null
  const event = JSON.parse(line.toString())
  return event.metadata.event_code === name ? event.unmapped.sallyport : null
}

/** @param {Map<string, Entry>} entries @param {string} folder @returns {Part} */
function readPart(entries, folder) {
  const bytesOf = (/** @type {string} */ name) => {
    const entry = entries.get(`${folder}${name}`)
    if (entry === undefined) throw new Violated(`${folder}${name}`, 'it is missing')
    return entry.bytes
  }
  const notes = splitHeads(bytesOf('checkpoints').toString(), `${folder}checkpoints`)
  const [origin = ''] = (notes[0] ?? '').split('\n')
  if (origin === '') throw new Violated(`${folder}checkpoints`, 'there is no head')
  const number = /(\d+)\/$/.exec(folder)?.[1]
  if (number !== undefined && epochForm.exec(origin)?.[2] !== number)
    throw new Violated(`${folder}checkpoints`, `they are of ${origin}`)
  const left = JSON.parse(bytesOf('left-edge.json').toString())
  if (!Number.isSafeInteger(left.size) || left.size < 0 || left.hashes.length !== bitsOf(left.size))
    throw new Violated(`${folder}left-edge.json`, 'not the edge of a tree')
  const bytes = bytesOf('events.ndjson')
  const firstEnd = bytes.indexOf(10)
  const lastEnd = bytes.at(-1) === 10 ? bytes.length - 1 : bytes.length
  return {
    folder,
    origin,
    epoch: number === undefined ? null : Number(number),
    notes,
    left,
    bytes,
    leaves: bytesOf('leaves.txt').toString(),
    consistency: entries.get(`${folder}consistency.json`)?.bytes.toString() ?? null,
    opening: jointIn(bytes.subarray(0, Math.max(0, firstEnd)), 'log.epoch_begin'),
    closing: jointIn(
      bytes.subarray(bytes.lastIndexOf(10, lastEnd - 1) + 1, lastEnd),
      'log.epoch_end',
    ),
  }
}

/**
 * Whose signatures every head of an epoch must have: the reader's keys of it, and those that the epochs next to it name.
 * So whoever has the keys of one has those of all, each out of what the one before it in this chain has signed.
 * @param {Part[]} parts @param {Vkey[]} given @returns {Map<string, Vkey[]>}
 */
function keysOf(parts, given) {
  /** @type {Map<string, Vkey[]>} */
  const keys = new Map(parts.map(({ origin }) => [origin, []]))
  const add = (/** @type {Vkey} */ key) => {
    const known = keys.get(key.name) ?? []
    if (!known.some(({ vkey }) => vkey === key.vkey)) keys.set(key.name, [...known, key])
  }
  const stem = stemOf(parts[0]?.origin ?? '')
  const other = given.find(({ name }) => stemOf(name) !== stem)
  const ofNone = given.length > 0 && !given.some(({ name }) => keys.has(name))
  const strange = other ?? (ofNone ? given[0] : undefined)
  if (strange !== undefined)
    throw new Violated(
      `${parts.at(-1)?.folder}checkpoints`,
      `the log is ${parts.map((part) => part.origin).join(', ')}, the key is for ${strange.name}`,
    )
  given.forEach(add)
  parts.forEach(({ folder, origin: own }, i) => {
    const named = [...(parts[i - 1]?.closing?.keys ?? []), ...(parts[i + 1]?.opening?.keys ?? [])]
    for (const key of named.map(readVkey)) {
      if (key.name !== own)
        throw new Violated(`${folder}checkpoints`, `the epoch next to it names keys of ${key.name}`)
      add(key)
    }
  })
  return keys
}

/** @param {readonly string[]} some @param {readonly Vkey[]} others */
const sameKeys = (some, others) =>
  some.length === others.length && others.every(({ vkey }) => some.includes(vkey))

/** @param {string} note @returns {{ origin: string, size: number, root: string }} what it says, whoever signed it */
function headIn(note) {
  const [origin = '', size = '', root = ''] = note.split('\n')
  const count = /^(0|[1-9]\d{0,15})$/.test(size) ? Number(size) : NaN
  return { origin, size: count, root: Buffer.from(root, 'base64').toString('hex') }
}

/**
 * That one epoch goes on from the other, and that nothing was put between: what the last event of the one says, and the
 * first of the other, each proven under its own keys. Of two that are `whole` both must say it.
 * @param {Part} older @param {{ size: number, root: string }} end its last head @param {Part} newer @param {Map<string, Vkey[]>} keys @param {boolean} whole
 */
function checkJoint(older, end, newer, keys, whole) {
  const [was, is] = [older.origin, newer.origin]
  const { opening } = newer
  const { closing } = older
  const bad = (/** @type {string} */ what) =>
    new Violated(`${newer.folder}events.ndjson, event ${newer.left.size}`, what)
  const badEnd = (/** @type {string} */ what) =>
    new Violated(`${older.folder}events.ndjson, event ${end.size - 1}`, what)
  if (stemOf(was) !== stemOf(is)) throw bad(`${is} is no epoch of the log of ${was}`)
  if (opening === null && whole) throw bad(`it does not say that ${is} goes on from ${was}`)
  if (opening !== null && opening.predecessor !== was)
    throw bad(`${is} goes on from ${opening.predecessor}, not from ${was}`)
  if (opening !== null) {
    const held = headIn(opening.note ?? '')
    if (held.size > end.size && (whole || closing !== null))
      throw badEnd(
        `of the ${held.size} events that ${was} ended with, as ${is} holds it, ${end.size} are here`,
      )
    const part = closing === null && !whole && held.size > end.size
    if (held.origin !== was || (!part && (held.size !== end.size || held.root !== end.root)))
      throw bad(
        `${is} goes on from a head of ${held.size} events that is not the last of ${was}, which has ${end.size}`,
      )
    if (closing === null && !part) throw badEnd(`${was} was not ended, and ${is} is there`)
    if (part && older.consistency !== null) checkBeginning(older, end, held)
  }
  if (closing === null && whole) throw badEnd(`${was} was not ended, and ${is} is there`)
  if (closing !== null && closing.successor !== is)
    throw badEnd(`${was} was ended for ${closing.successor}, not for ${is}`)
  if (closing !== null && !sameKeys(closing.keys, keys.get(is) ?? []))
    throw badEnd(`${was} was ended for other keys of ${is} than these`)
  if (opening !== null && !sameKeys(opening.keys, keys.get(was) ?? []))
    throw bad(`${is} names other keys of ${was}`)
}

/**
 * That what the next epoch holds of one begins with what is here of it.
 * @param {Part} older @param {{ size: number, root: string }} end its last head that is here @param {{ size: number, root: string }} held
 */
function checkBeginning({ folder, origin, consistency }, end, held) {
  const bad = new Violated(
    `${folder}consistency.json`,
    `it does not show that the ${held.size} events that ${origin} ended with begin with the ${end.size} that are here`,
  )
  const { hashes } = JSON.parse(consistency ?? '')
  const isHashes =
    Array.isArray(hashes) && hashes.every((hash) => /^[0-9a-f]{64}$/.test(String(hash)))
  const text = `${JSON.stringify({ from: end.size, size: held.size, hashes })}\n`
  if (!isHashes || text !== consistency) throw bad
  // A beginning that is one perfect subtree is its own first hash, and left out.
  const path = [...(bitsOf(end.size) === 1 ? [end.root] : []), ...hashes]
  const roots = rootsOf(
    end.size,
    held.size,
    path.map((hash) => Buffer.from(hash, 'hex')),
  )
  if (roots?.[0] !== end.root || roots[1] !== held.root) throw bad
}

/** Whether the next epoch holds a head of this one that is not here: then consistency.json joins the two. @param {Part} older @param {Part | undefined} newer */
const isHeldBeyond = (older, newer) =>
  older.closing === null && newer !== undefined && newer.opening !== null

/** @param {Part | undefined} older @param {Part} newer */
const isJoined = (older, newer) =>
  older !== undefined && !(isHeldBeyond(older, newer) && older.consistency === null)

/** @param {Vkey[]} some whether one of them can be checked with */
const usable = (some) => some.some(({ key }) => key !== null)

/** Epochs later than all that is here, of which the reader brought keys. @param {Part[]} chain @param {Vkey[]} given */
const laterGiven = (chain, given) => {
  const last = chain.at(-1)?.origin ?? ''
  return [...new Set(given.map(({ name }) => name))].filter((name) => isLater(name, last))
}

/** The newest epoch of which the reader brought keys that can be checked with, where it is here. @param {Part[]} chain @param {Vkey[]} given */
const newestGiven = (chain, given) =>
  laterGiven(chain, given).length > 0
    ? undefined
    : chain.findLast(({ origin }) => usable(given.filter(({ name }) => name === origin)))

/**
 * Why it is not proven for a reader with these keys, whatever the signatures. Keys of an epoch may have come to somebody
 * when a later one began: so what the newest ones that were brought do not lead to is not proven by older ones.
 * @param {Part[]} chain @param {Set<Part>} trusted @param {Part[]} shown @param {Vkey[]} given @returns {string[]}
 */
function doubtsOf(chain, trusted, shown, given) {
  const newest = newestGiven(chain, given)
  return [
    ...laterGiven(chain, given).map(
      (name) => `keys of ${name} were given, and nothing here leads to it`,
    ),
    ...chain.flatMap((part, i) =>
      isHeldBeyond(part, chain[i + 1]) && part.consistency === null
        ? [
            `nothing here shows that ${chain[i + 1]?.origin} goes on from what is here of ${part.origin}`,
          ]
        : [],
    ),
    ...chain
      .filter((part) => newest !== undefined && shown.includes(part) && !trusted.has(part))
      .map(
        ({ origin }) =>
          `keys of ${newest?.origin} were given, and nothing here leads from it to ${origin}`,
      ),
  ]
}

/** @param {string} origin @param {string} other */
const isLater = (origin, other) =>
  Number(epochForm.exec(origin)?.[2]) > Number(epochForm.exec(other)?.[2])

/**
 * The epochs that are proven under the newest keys the reader brought, or that one which is so proven names, and holds.
 * @param {Part[]} chain @param {Vkey[]} given @param {Map<string, Vkey[]>} keys @returns {Set<Part>}
 */
function trustedIn(chain, given, keys) {
  const newest = newestGiven(chain, given)
  const trusted = new Set(newest === undefined ? [] : [newest])
  const reach = (/** @type {Part | undefined} */ from, /** @type {Part | undefined} */ to) => {
    if (from === undefined || to === undefined || !trusted.has(from)) return
    if (usable(keys.get(to.origin) ?? [])) trusted.add(to)
  }
  chain.forEach((part, i) => {
    if (part.closing !== null) reach(part, chain[i + 1])
  })
  for (const [i, part] of [...chain.entries()].toReversed())
    if (part.opening !== null && isJoined(chain[i - 1], part)) reach(part, chain[i - 1])
  return trusted
}

/**
 * Steps 2 and 3. What comes back is proven, under the keys: the events from the first on, all of them, of each epoch and
 * between them.
 * @param {Map<string, Entry>} entries @param {Vkey[]} given
 * @returns {Proven}
 */
export function proveEvents(entries, given) {
  const parts = foldersOf(entries).map((folder) => readPart(entries, folder))
  const stem = stemOf(parts[0]?.origin ?? '')
  const ofLog = given.filter(({ name }) => stemOf(name) === stem)
  // Who has the keys of a whole site has those of other logs too: what these would prove is not here.
  if (ofLog.length === 0) return proveParts(entries, parts, given)
  const proven = proveParts(entries, parts, ofLog)
  proven.doubts.push(...othersGiven(new Set([stem]), given))
  return proven
}

/**
 * What comes back is proven under the keys, all of which are the log's.
 * @param {Map<string, Entry>} entries @param {Part[]} parts @param {Vkey[]} given @returns {Proven}
 */
function proveParts(entries, parts, given) {
  const links = linkFolders(entries).map((folder) => readPart(entries, folder))
  const chain = chainOf(parts, links)
  const keys = keysOf(chain, given)
  /** @type {Event[]} */
  const events = []
  /** @type {Epoch[]} */
  const epochs = []
  let base = 0
  /** @type {{ size: number, root: string } | null} */
  let end = null
  for (const [i, part] of chain.entries()) {
    const shown = !links.includes(part)
    const proven = provePart(part, keys.get(part.origin) ?? [], shown ? events : [], base)
    const older = chain[i - 1]
    if (older !== undefined && end !== null)
      checkJoint(older, end, part, keys, shown && !links.includes(older))
    end = proven.end
    if (!shown) continue
    base += end.size
    epochs.push(epochOf(part, proven))
  }
  markUndone(events)
  const [oldest] = epochs
  const trusted = trustedIn(chain, given, keys)
  return {
    events,
    epochs,
    links: links.map(({ origin }) => origin).toSorted(),
    early: (oldest?.first ?? 0) > 0 || oldest?.predecessor !== null,
    pinned: parts.every((part) => trusted.has(part)),
    doubts: doubtsOf(chain, trusted, parts, given),
    files: new Map(
      chain.flatMap((part, i) =>
        [
          ...partFiles,
          ...(isHeldBeyond(part, chain[i + 1]) && part.consistency !== null
            ? ['consistency.json']
            : []),
        ].map((name) => [`${part.folder}${name}`, trusted.has(part)]),
      ),
    ),
    keys: new Map(
      [...keys].filter(
        ([origin]) =>
          given.some(({ name }) => name === origin) ||
          [...trusted].some((part) => part.origin === origin),
      ),
    ),
    site: null,
  }
}

const nodeFolder = /^nodes\/([^/]+)\//
const nodeForm = /^(.+\/)([^/]+)\/$/
/** As a gateway may be named in its settings: no path, and nothing that only looks like another. @param {unknown} node */
export const isNodeName = (node) => /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/.test(String(node))

/** The gateway whose log this is, and what those of one site have in common. @param {string} origin */
export function nodeOf(origin) {
  const match = nodeForm.exec(stemOf(origin))
  return isNodeName(match?.[2])
    ? { site: match?.[1] ?? '', node: match?.[2] ?? '' }
    : { site: '', node: '' }
}

/**
 * Steps 2 and 3 of a package of several gateways: each log by itself, under the reader's keys of it; then all events in order of
 * time. `named`: the gateways that the site has.
 * @param {Map<string, Entry>} entries @param {Vkey[]} given @param {string[]} named @returns {Proven}
 */
export function proveSite(entries, given, named) {
  const nodes = new Set([...entries.keys()].flatMap((name) => nodeFolder.exec(name)?.[1] ?? []))
  const logs = [...nodes].toSorted().map((node) => proveNode(entries, given, node))
  const [first] = logs
  if (first === undefined) throw new Violated('nodes/', 'there is no log')
  const { site } = nodeOf(first.proven.epochs[0]?.origin ?? '')
  for (const { node, proven } of logs)
    if (nodeOf(proven.epochs[0]?.origin ?? '').site !== site)
      throw new Violated(`nodes/${node}/`, `its log is not of the site ${site}`)
  const all = logs.map(({ proven }) => proven)
  return {
    events: inOrderOfTime(all.map(({ events }) => events)),
    epochs: all.flatMap(({ epochs }) => epochs),
    links: all.flatMap(({ links }) => links),
    early: all.some(({ early }) => early),
    pinned: all.every(({ pinned }) => pinned),
    doubts: siteDoubts(logs, given),
    files: new Map(
      logs.flatMap(({ node, proven }) =>
        [...proven.files].map(([name, isProven]) => [`nodes/${node}/${name}`, isProven]),
      ),
    ),
    keys: new Map(all.flatMap(({ keys }) => [...keys])),
    site: { logs, named, absent: named.filter((node) => !nodes.has(node)) },
  }
}

/** One gateway's log, as the package of it alone would have it. @param {Map<string, Entry>} entries @param {Vkey[]} given @param {string} node @returns {Log} */
function proveNode(entries, given, node) {
  const folder = `nodes/${node}/`
  const own = new Map(
    [...entries].flatMap(([name, entry]) =>
      name.startsWith(folder) ? [[name.slice(folder.length), entry]] : [],
    ),
  )
  try {
    const [first = ''] = foldersOf(own)
    const { origin } = readPart(own, first)
    if (nodeOf(origin).node !== node) throw new Violated('', `it holds the log ${origin}`)
    const proven = proveEvents(
      own,
      given.filter(({ name }) => stemOf(name) === stemOf(origin)),
    )
    for (const event of proven.events) event['node'] = node
    return { node, proven }
  } catch (error) {
    if (error instanceof Violated) throw new Violated(`${folder}${error.place}`, error.what)
    throw error
  }
}

/** Logs that the reader brought keys of and that are not here. @param {Set<string>} stems @param {Vkey[]} given @returns {string[]} */
function othersGiven(stems, given) {
  const others = new Set(given.map(({ name }) => stemOf(name)).filter((stem) => !stems.has(stem)))
  return [...others].map((stem) => `keys of ${stem} were given, and that log is not in the package`)
}

/** Why it is not proven for a reader with these keys, by gateway. @param {Log[]} logs @param {Vkey[]} given @returns {string[]} */
function siteDoubts(logs, given) {
  const stems = new Set(logs.map(({ proven }) => stemOf(proven.epochs[0]?.origin ?? '')))
  return [
    ...othersGiven(stems, given),
    ...logs.flatMap(({ node, proven }) =>
      given.length > 0 && !proven.pinned && proven.doubts.length === 0
        ? [`no key was given of the log of ${node}: it may be anybody\u2019s`]
        : proven.doubts,
    ),
  ]
}

/**
 * The events of several logs as one: by their time, those of one log in that log's order, whatever its clock did.
 * @param {Event[][]} lanes @returns {Event[]}
 */
function inOrderOfTime(lanes) {
  const heads = lanes.map((events) => ({ events, next: 0, time: 0 }))
  const timeOf = (/** @type {{ events: Event[], next: number, time: number }} */ head) =>
    Math.max(head.time, head.events[head.next]?.['time'] ?? Number.POSITIVE_INFINITY)
  /** @type {Event[]} */
  const merged = []
  for (;;) {
    let first
    for (const head of heads)
      if (head.next < head.events.length && (first === undefined || timeOf(head) < timeOf(first)))
        first = head
    const event = first?.events[first.next]
    if (first === undefined || event === undefined) break
    first.time = timeOf(first)
    first.next++
    event['at'] = merged.length
    merged.push(event)
  }
  return merged
}

/** @param {Part} part @param {{ heads: number, end: { size: number } }} proven @returns {Epoch} */
const epochOf = ({ origin, epoch, left, opening, closing }, { heads, end }) => ({
  origin,
  epoch,
  first: left.size,
  last: end.size,
  heads,
  predecessor: opening?.predecessor ?? null,
  successor: closing?.successor ?? null,
})
const partFiles = ['checkpoints', 'left-edge.json', 'events.ndjson', 'leaves.txt']

/**
 * One epoch: its heads signed, and its events just those that they are over. Adds them to `events`, which are `base` in the
 * epochs before it.
 * @param {Part} part @param {Vkey[]} keys @param {Event[]} events @param {number} base
 * @returns {{ heads: number, end: { size: number, root: string } }}
 */
function provePart({ folder, origin, epoch, notes, left, bytes, leaves }, keys, events, base) {
  const place = `${folder}checkpoints`
  const heads = notes.map((note, i) => readHead(note, keys, `${place}, head ${i + 1}`))
  const edge = new Edge(
    left.size,
    left.hashes.map((hash) => Buffer.from(hash, 'hex')),
  )
  const [head] = heads
  // Where the log was pruned between two heads no head is of its edge; the next one commits to it with what follows.
  const atEdge = left.size > 0 && head?.size === left.size
  const rest = heads.slice(atEdge ? 1 : 0)
  if (head === undefined || rest.length === 0) throw new Violated(place, 'there is no head')
  if (atEdge && head.root !== edge.root())
    throw new Violated(`${folder}left-edge.json`, `its root is not the one signed at ${head.size}`)
  const own = followEvents(`${folder}events.ndjson`, bytes, leaves, edge, rest)
  for (const other of heads)
    if (other.origin !== origin) throw new Violated(place, `a head of ${other.origin}`)
  for (const [i, event] of own.entries()) {
    const idx = left.size + i
    const bad = (/** @type {string} */ what) =>
      new Violated(`${folder}events.ndjson, event ${idx}`, what)
    if (event['metadata']?.sequence !== idx || event['metadata']?.log_name !== origin)
      throw bad('it says that it stands elsewhere')
    if (code(event) === 'log.epoch_begin' && idx > 0) throw bad('the log begins a second time')
    if (code(event) === 'log.epoch_end' && i < own.length - 1)
      throw new Violated(
        `${folder}events.ndjson, event ${idx + 1}`,
        'the log goes on behind its end',
      )
    event['at'] = base + idx
    event['epoch'] = epoch
    events.push(event)
  }
  return { heads: heads.length, end: { size: edge.size, root: edge.root() } }
}

/** @param {string} place @param {Buffer} bytes @param {string} leaves @param {Edge} edge @param {{ size: number, root: string }[]} heads @returns {Event[]} */
function followEvents(place, bytes, leaves, edge, heads) {
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
        `${place}, event ${idx}`,
        `its leaf hash is not the one in ${place.replace('events.ndjson', 'leaves.txt')}`,
      )
    edge.push(leaf)
    const head = heads[next]
    if (head !== undefined && head.size === edge.size) {
      if (head.root !== edge.root())
        throw new Violated(
          `${place}, event ${matched} to ${edge.size - 1}`,
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
      place,
      `${edge.size} events are not the ${heads.at(-1)?.size} that were signed`,
    )
  return events
}

/** @param {Event} event @returns {Where} */
const whereOf = (event) => ({
  ...nodeIn(event),
  epoch: event['epoch'],
  idx: event['metadata'].sequence,
})
/** @param {Event | undefined} event */
const nodeIn = (event) => (event?.['node'] === undefined ? {} : { node: event['node'] })
/** @param {Where} where */
const eventText = ({ node, epoch, idx }) =>
  `event ${idx}${epoch === null ? '' : ` of epoch ${epoch}`}${node === undefined ? '' : ` of ${node}`}`
/** @param {Where} where */
const eventMark = ({ node = '', epoch, idx }) =>
  epoch === null ? `${node}#${idx}` : `${node}#${epoch}/${idx}`

/**
 * Whether one event came before another: those of one log stand in order; of two gateways, whose clocks may differ, whether it
 * may have.
 * @param {Event} event @param {Event} other
 */
const mayPrecede = (event, other) =>
  event['node'] === other['node']
    ? event['at'] < other['at']
    : event['time'] <= other['time'] + fluxMs
/** Whether it did, whatever the clocks. @param {Event} event @param {Event} other */
const didPrecede = (event, other) =>
  event['node'] === other['node']
    ? event['at'] < other['at']
    : event['time'] < other['time'] - fluxMs

/** What is recorded before the store is told, and so may be taken back by an event behind it. */
const takenBack = [
  'grant.approve',
  'grant.reject',
  'grant.revoke',
  'grant.burn',
  'session.lock',
  'session.unlock',
  'device.quarantine',
  'device.resume',
  'device.retire',
]

/**
 * What became of an act whose failure this event records: it stands, was not done, or nobody knows.
 * @param {Event} event @returns {'held' | 'none' | 'unknown'}
 */
function effectOf(event) {
  const told = own(event)['effect']
  if (['held', 'none', 'unknown'].includes(told)) return told
  return event['status_code'] === 'store.unavailable' ? 'unknown' : 'none'
}

/** What stands before the words of an administrative call, a service revoked or an account locked, that came to nothing, or may have. */
const notDone = /^(?:without effect|not known whether this took effect): /

/** By which an act and its failure know each other; null: it is no act that is recorded before the store is told. @param {Event} event */
function actOf(event) {
  const who = event['actor']?.user?.uid
  const { grant, scope, target, device, operation, entity } = own(event)
  if (takenBack.includes(code(event))) {
    const whose = code(event).startsWith('device.') ? device : target
    return JSON.stringify([code(event), grant, scope, whose, lockOf(event), who])
  }
  if (code(event) !== 'admin.call') return null
  const message = String(event['message'])
  const isDone = event['status_id'] === 1
  if (!isDone && !notDone.test(message)) return null
  return JSON.stringify([isDone ? message : message.replace(notDone, ''), operation, entity, who])
}

/** Which lock it is: what was done has it for its reason, what failed among its words. @param {Event} event */
function lockOf(event) {
  if (!code(event).startsWith('session.')) return null
  if (event['status_id'] === 1) return event['status_code'] ?? null
  return /\((l_\w+)\)/.exec(String(event['message']))?.[1] ?? null
}

/**
 * Marks what was recorded and then not done, or not surely: the failure behind it names the same act, grant, lock or
 * entity, and person. Who has approved may be refused a second approval: that one counts as many as there are, and takes none back.
 * @param {Event[]} events
 */
function markUndone(events) {
  /** @type {Map<string, Event>} */
  const told = new Map()
  for (const event of events) {
    const key = actOf(event)
    if (key === null) continue
    if (event['status_id'] === 1) {
      told.set(key, event)
      continue
    }
    const before = told.get(key)
    if (before === undefined) continue
    const [had, has] = [before, event].map((one) => own(one)['approvals'])
    if (code(event) === 'grant.approve' && has !== had - 1) continue
    told.delete(key)
    event['settles'] = before
    if (effectOf(event) !== 'held') before['undone'] = event
  }
}

/** What is put before the words of an act that was not done, or not surely; empty where it was. @param {Event} event */
function undoneText(event) {
  const by = event['undone']
  if (by === undefined) return ''
  return `${effectOf(by) === 'none' ? 'WITHOUT EFFECT' : 'NOT CONFIRMED'} (${eventText(whereOf(by))}): `
}

// ------------------------------------------------------------------ 4. the heartbeats

const silenceMs = 90_000
/** Kinds of gaps that have a reason: they are listed, and spoil no proof. */
const listedGaps = ['stopped', 'crashed', 'clock']
/** A session whose start or end lies this close to a heartbeat may or may not be in it yet. */
const fluxMs = 5_000

/** @param {Event} event @returns {string} */
const code = (event) => event['metadata'].event_code
/** @param {Event} event @returns {Record<string, any>} */
const own = (event) => event['unmapped'].sallyport

/** @typedef {Where & { from: number, to: number, kind: 'stopped' | 'crashed' | 'clock' | 'silent' | 'before' | 'after' }} Gap */

/**
 * Times of [from, to] in which no heartbeat says what was active. `stopped` lies between log.close and log.open,
 * `crashed` before a log.open; `clock` between two heartbeats that another clock, which stands still with the machine,
 * knows to be near, or where the time went back; `silent`, `before` and `after` have no such reason.
 * @param {Event[]} events @param {number} from @param {number} to @returns {Gap[]}
 */
function heartbeatGaps(events, from, to) {
  /** @type {Gap[]} */
  const gaps = []
  /** @type {(Where & { time: number }) | null} */
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
    const where = whereOf(event)
    if (last === null && time > from + silenceMs)
      gaps.push({ from, to: time, kind: 'before', ...where })
    if (last !== null && time - last.time > silenceMs) {
      const near = what === 'log.heartbeat' && own(event)['elapsed_ms'] <= silenceMs
      gaps.push({ from: last.time, to: time, kind: near ? 'clock' : since, ...where })
    }
    if (last !== null && time < last.time - fluxMs)
      gaps.push({ from: time, to: last.time, kind: 'clock', ...where })
    last = { time, ...where }
    since = 'silent'
  }
  const { time: end, ...where } = last ?? {
    time: from,
    ...nodeIn(events[0]),
    epoch: null,
    idx: 0,
  }
  if (to - end > silenceMs) gaps.push({ from: end, to, kind: 'after', ...where })
  return gaps.filter((gap) => gap.to >= from && gap.from <= to)
}

/** Those of every gateway, the earliest first. @param {Proven} proven @param {number} from @param {number} to @returns {Gap[]} */
const gapsOf = (proven, from, to) =>
  logsOf(proven)
    .flatMap(({ events }) => heartbeatGaps(events, from, to))
    .toSorted((a, b) => (proven.site === null ? 0 : a.from - b.from))

/** @typedef {{ id: string, start: Event | null, end: Event | null }} Session */

/** A session is one gateway's: what another says of one so named is about another. @param {Event} event */
const sessionKey = (event) => {
  const id = own(event)['session']
  return event['node'] === undefined ? id : `${event['node']}/${id}`
}

/** @param {Event[]} events @returns {Map<string, Session>} */
function sessionsOf(events) {
  /** @type {Map<string, Session>} */
  const sessions = new Map()
  for (const event of events) {
    const id = own(event)['session']
    const key = sessionKey(event)
    if (code(event) === 'session.start') sessions.set(key, { id, start: event, end: null })
    if (code(event) !== 'session.end') continue
    const session = sessions.get(key) ?? { id, start: null, end: null }
    session.end = event
    sessions.set(key, session)
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
 * @param {Event[]} events @param {boolean} early
 * @returns {{ untold: Where[], exceptions: Exception[] }}
 */
function checkActiveSets(events, early) {
  const sessions = [...sessionsOf(events).values()]
  /** @type {Where[]} */
  const untold = []
  /** @type {Exception[]} */
  const exceptions = []
  for (const beat of events.filter((event) => code(event) === 'log.heartbeat')) {
    const { at } = beat
    const isNear = (/** @type {Event | null} */ event) =>
      event !== null && Math.abs(event['time'] - beat['time']) <= fluxMs
    const begun = sessions.filter(({ start }) => start !== null && start['at'] < at)
    const flux = begun.filter(({ start, end }) => isNear(start) || isNear(end)).slice(0, 12)
    const sure = begun.filter(
      (session) => !flux.includes(session) && (session.end === null || session.end['at'] > at),
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
    const before = sessions.some(({ start, end }) => start === null && end?.['at'] > at)
    if (early && (before || active > sure.length + flux.length)) untold.push(whereOf(beat))
    else
      exceptions.push({
        ...whereOf(beat),
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
 * @typedef {{ by: string, who: string, time: number, event: Event }} Act what somebody did about a grant
 * @typedef {{ id: string, requester: string, who: string, devices: string[], processes: string[], notBefore: number, notAfter: number, maxMs: number, maxUses: number, maxBytes: number, firstUse: number | null, earlier: { until: Event, notAfter: number, maxMs: number }[], reason: string, ticket: string,
 *   approvals: Act[], needed: number, request: Event, activated: number | null, ended: (Act & { how: string }) | null, ends: (Act & { how: string })[], unconfirmed: (Act & { how: string })[], again: Event[] }} Grant
 *   `ends`: all of its ends, of which `ended` is the first; `unconfirmed`: ends that were recorded and then not done, or not
 *   surely; `again`: requests of it at other gateways than its own
 */

/** After any of these a grant opens nothing more: refused, taken back, run out, given back. */
const endings = ['grant.reject', 'grant.revoke', 'grant.expire', 'grant.burn']

/**
 * When a grant ends by itself: with its window, or with its duration from the first use, whichever is first.
 * @param {Grant} grant
 */
const endsAt = ({ notAfter, firstUse, maxMs }) =>
  firstUse === null ? notAfter : Math.min(notAfter, firstUse + maxMs)
/** What it said of its time when an event was logged. @param {Grant} grant @param {Event} event @returns {Grant} */
function termsAt(grant, event) {
  const then = grant.earlier.find(({ until }) => didPrecede(event, until))
  return then === undefined ? grant : { ...grant, notAfter: then.notAfter, maxMs: then.maxMs }
}
/** Until when it opened something, epoch ms. @param {Grant} grant */
const openUntil = (grant) => Math.min(endsAt(grant), grant.ended?.time ?? Number.MAX_SAFE_INTEGER)

/** @param {Event} event */
const whoOf = (event) => event['actor']?.user?.name ?? event['actor']?.user?.uid ?? 'the gateway'

/** @param {Event[]} events @returns {Map<string, Grant>} every grant that was requested, and what became of it */
function grantsOf(events) {
  /** @type {Map<string, Grant>} */
  const grants = new Map()
  const about = events.filter((event) => code(event).startsWith('grant.'))
  const isRequest = (/** @type {Event} */ event) =>
    code(event) === 'grant.request' && event['status_id'] === 1
  // Another gateway's clock may put what became of a grant in front of its request.
  const ordered = about.some(({ node }) => node !== undefined)
    ? [...about.filter(isRequest), ...about.filter((event) => !isRequest(event))]
    : about
  for (const event of ordered) {
    const facts = own(event)
    if (isRequest(event)) {
      const known = grants.get(facts['grant'])
      // What one gateway says of a grant is not put in place of what another said: neither may hide the other's.
      if (known !== undefined && known.request['node'] !== event['node']) {
        known.again.push(event)
        continue
      }
      grants.set(facts['grant'], {
        id: facts['grant'],
        requester: event['actor']?.user?.uid ?? '',
        who: whoOf(event),
        devices: facts['devices'] ?? [facts['device']],
        processes: facts['processes'] ?? [facts['process']],
        notBefore: (facts['not_before'] ?? 0) * 1000,
        notAfter: (facts['not_after'] ?? Number.MAX_SAFE_INTEGER / 1000) * 1000,
        maxMs: (facts['max_seconds'] ?? Number.POSITIVE_INFINITY) * 1000,
        maxUses: facts['max_uses'] ?? Number.POSITIVE_INFINITY,
        maxBytes: facts['max_bytes'] ?? Number.POSITIVE_INFINITY,
        firstUse: null,
        earlier: [],
        reason: facts['reason_given'] ?? '',
        ticket: facts['ticket'] ?? '',
        approvals: [],
        needed: facts['approvals_needed'] ?? 0,
        request: event,
        activated: null,
        ended: null,
        ends: [],
        unconfirmed: [],
        again: [],
      })
      continue
    }
    const grant = grants.get(facts['grant'])
    if (grant !== undefined && mayPrecede(grant.request, event)) follow(grant, event)
  }
  return grants
}

/** What an event about a grant makes of it. @param {Grant} grant @param {Event} event */
function follow(grant, event) {
  const what = code(event)
  const facts = own(event)
  const { undone } = event
  // It had been recorded to be in force by the approval that was not given after all.
  if (undoesApproval(event) && grant.approvals.length < grant.needed) grant.activated = null
  if (event['status_id'] !== 1) return
  // One that ended by itself may have done so while nobody was there to record it.
  const time = facts['ended_at'] === undefined ? event['time'] : facts['ended_at'] * 1000
  const act = { by: event['actor']?.user?.uid ?? '', who: whoOf(event), time, event }
  // Where nobody knows whether it was kept, who was let in by it shows that it was.
  if (what === 'grant.approve' && (undone === undefined || effectOf(undone) !== 'none'))
    grant.approvals.push(act)
  if (what === 'grant.activate') grant.activated = event['time']
  if (what === 'grant.use') grant.firstUse ??= event['time']
  if (what === 'grant.extend') extend(grant, facts, event)
  if (!endings.includes(what)) return
  const end = { ...act, how: what.slice(6) }
  if (undone !== undefined) return void grant.unconfirmed.push(end)
  grant.ended ??= end
  grant.ends.push(end)
}

/** @param {Event} event */
const undoesApproval = (event) =>
  code(event) === 'grant.approve' && event['settles'] !== undefined && effectOf(event) === 'none'

/** It lasts longer from an event on, or no longer: what it was before counts for what came before.
 * @param {Grant} grant @param {Record<string, any>} facts @param {Event} until */
function extend(grant, facts, until) {
  grant.earlier.push({ until, notAfter: grant.notAfter, maxMs: grant.maxMs })
  if (facts['not_after'] !== undefined) grant.notAfter = facts['not_after'] * 1000
  if (facts['max_seconds'] !== undefined) grant.maxMs = facts['max_seconds'] * 1000
}

/** @typedef {Where & { what: string }} Exception */

/**
 * How a session does not agree with the grant it began under; `earlier` sessions began under it before.
 * @param {Event} start @param {Grant} grant @param {number} earlier
 * @param {string[] | null} elsewhere takes what may stand in the log of a gateway that is left out; null: none is
 * @returns {string[]}
 */
function faultsOf(start, grant, earlier, elsewhere) {
  const { device, process } = own(start)
  const faults = []
  const before = grant.approvals.filter(({ event }) => mayPrecede(event, start))
  if (before.some(({ by }) => by === grant.requester))
    faults.push('its grant was approved by who requested it')
  if (new Set(before.map(({ by }) => by)).size < grant.needed)
    (elsewhere ?? faults).push(`its grant had ${before.length} of ${grant.needed} approvals`)
  if (!grant.devices.includes(device)) faults.push(`its grant is not for ${device}`)
  if (!grant.processes.includes(process)) faults.push(`its grant is not for the process ${process}`)
  if ((start['actor']?.user?.uid ?? '') !== grant.requester)
    faults.push(`its grant is ${grant.who}\u2019s, and ${whoOf(start)} used it`)
  if (
    start['time'] < grant.notBefore - fluxMs ||
    start['time'] > endsAt(termsAt(grant, start)) + fluxMs
  )
    faults.push('it began outside the time of its grant')
  if (earlier >= grant.maxUses) faults.push(`its grant was for ${grant.maxUses} sessions`)
  // Any of them: one of another gateway, whose clock may differ, does not stand for one that is sure.
  const ended = grant.ends.find(({ event }) => didPrecede(event, start))
  if (ended !== undefined) faults.push(`its grant had ended (${ended.how})`)
  return faults
}

/** What is proven of one gateway's log; of a package of one log all. @param {Proven} proven @param {string | undefined} node @returns {Proven} */
const logOf = (proven, node) => proven.site?.logs.find((log) => log.node === node)?.proven ?? proven
/** Each log by itself. @param {Proven} proven @returns {Proven[]} */
const logsOf = (proven) => proven.site?.logs.map((log) => log.proven) ?? [proven]

/**
 * What should not be: sessions outside their grant, approvals by the requester, sessions without a known grant.
 * @param {Proven} proven
 * @returns {{ exceptions: Exception[], untold: string[] }}
 */
function checkGrants(proven) {
  const { events, early, site } = proven
  // What is not here may have been said at a gateway that is left out: then that is what is wrong.
  const isShort = (site?.absent ?? []).length > 0
  const grants = grantsOf(events)
  /** @type {Exception[]} */
  const exceptions = []
  const untold = []
  /** @type {Map<string, number>} */
  const begun = new Map()
  const before = eventText(events[0] === undefined ? { epoch: null, idx: 0 } : whereOf(events[0]))
  for (const { id, request, again } of grants.values())
    for (const event of again)
      exceptions.push({
        ...whereOf(event),
        what: `the grant ${id} was requested at ${request['node']} too: one of the two is another`,
      })
  for (const { id, start, end } of sessionsOf(events).values()) {
    if (start === null) {
      if (end !== null && !logOf(proven, end['node']).early)
        exceptions.push({ ...whereOf(end), what: `session ${id} ended and never began` })
      continue
    }
    const grant = grants.get(own(start)['grant'])
    const bad = (/** @type {string} */ what) =>
      exceptions.push({ ...whereOf(start), what: `session ${id}: ${what}` })
    if (grant === undefined) {
      if (isShort)
        untold.push(
          `the grant ${own(start)['grant']} of session ${id} was requested at none of the gateways that are here`,
        )
      else if (early)
        untold.push(
          `the grant ${own(start)['grant']} of session ${id} was requested before ${before}`,
        )
      else bad('its grant was never requested')
      continue
    }
    const earlier = begun.get(grant.id) ?? 0
    begun.set(grant.id, earlier + 1)
    /** @type {string[]} */
    const elsewhere = []
    for (const fault of faultsOf(start, grant, earlier, isShort ? elsewhere : null)) bad(fault)
    for (const what of elsewhere)
      untold.push(`session ${id}: ${what} at the gateways that are here`)
  }
  return { exceptions, untold }
}

/** @typedef {{ start: Event, closed: Event | null, parts: Map<string, Event>, end: Event | null }} Recording */

/** @param {Event[]} events @returns {Map<string, Recording>} what was to be recorded, and what of it was logged */
function recordingsOf(events) {
  /** @type {Map<string, Recording>} */
  const found = new Map()
  for (const event of events) {
    const what = code(event)
    const key = sessionKey(event)
    if (what === 'session.start' && ![undefined, 'flow'].includes(own(event)['recording']))
      found.set(key, { start: event, closed: null, parts: new Map(), end: null })
    const recording = found.get(key)
    if (recording === undefined) continue
    if (what === 'session.end') recording.closed = event
    if (what === 'recording.end') recording.end = event
    if (what !== 'recording.part') continue
    const { track, part, sha256: digest } = own(event)
    // A gateway that died with an event on disk, and did not know it, says the same again.
    recording.parts.set(`${track}/${part}/${digest}`, event)
  }
  return found
}

/** RFC 6962 root over `track|part|bytes|sha256`, in order. @param {Record<string, any>[]} parts */
function recordingRoot(parts) {
  const edge = new Edge(0, [])
  for (const { track, part, bytes, sha256: digest } of parts)
    edge.push(leafHash(Buffer.from(`${track}|${part}|${bytes}|${digest}`)))
  return edge.root()
}

/** How a recording is not whole, as far as the log tells. @param {Recording} recording @returns {string[]} */
function recordingFaults({ closed, parts, end }) {
  if (end === null) return closed === null ? [] : ['its recording has no end']
  const told = [...parts.values()]
    .map((event) => own(event))
    .toSorted((a, b) => a['track'] - b['track'] || a['part'] - b['part'])
  const faults = []
  told.forEach(({ track, part }, at) => {
    const before = told[at - 1]
    const due = before?.['track'] === track ? before?.['part'] + 1 : 1
    if (part !== due)
      faults.push(`part ${track}/${part} of its recording stands where ${due} is due`)
  })
  const { parts: count, root } = own(end)
  if (count !== told.length || root !== recordingRoot(told))
    faults.push('its recording is not what its end says')
  const named = closed === null ? root : (own(closed)['recording_root'] ?? root)
  if (named !== root) faults.push('its end names the root of another recording')
  return faults
}

/** @param {Event[]} events @returns {Exception[]} */
function checkRecordings(events) {
  return [...recordingsOf(events).values()].flatMap((recording) =>
    recordingFaults(recording).map((what) => ({
      ...whereOf(recording.end ?? recording.closed ?? recording.start),
      what: `session ${own(recording.start)['session']}: ${what}`,
    })),
  )
}

// ------------------------------------------------------------------ the verdict

/**
 * @typedef {Where & { time: number, message: string }} Told an event of that time that a reader has to know of
 * @typedef {{ outcome: 'proven' | 'not-provable', words: string, gaps: Gap[], recoveries: Told[], unconfirmed: Told[], exceptions: Exception[], untold: string[] }} Judgement
 *   `unconfirmed`: acts that were recorded and then not done, or not surely
 */

/**
 * What of [from, to] no event here is about: before the first, where the log goes back further, and behind the last.
 * @param {Proven} proven @param {number} from @param {number} to @returns {string[]}
 */
function outsideOf({ events, epochs, early }, from, to) {
  const [first, last] = [events[0], events.at(-1)]
  const successor = epochs.at(-1)?.successor ?? null
  const before = epochs[0]?.predecessor ?? null
  const said = []
  const ofNode = first?.['node'] === undefined ? '' : ` of ${first['node']}`
  if (first !== undefined && early && first['time'] >= from)
    said.push(
      before === null
        ? `the package begins at ${eventText(whereOf(first))}; what came before is not in it`
        : `the log goes on from ${before}, which is not in the package`,
    )
  // Events behind the last one may have been left out with the heads over them: only a later one shows that there are none.
  if (last !== undefined && last['time'] < to)
    said.push(
      successor === null
        ? `the last event${ofNode} in the package is of ${timeText(last['time'])}: of what came behind it nothing is shown`
        : `the log goes on as ${successor}, which is not in the package`,
    )
  return said
}

/** @param {Event} event @returns {Told} */
const toldBy = (event) => ({
  ...whereOf(event),
  time: event['time'],
  message: `${undoneText(event)}${event['message']}`,
})

/**
 * What can be said of [from, to], epoch ms, by events that are proven.
 * @param {Proven} proven @param {number} from @param {number} to
 * @returns {Judgement}
 */
export function judge(proven, from, to) {
  const { events, site } = proven
  const logs = logsOf(proven)
  const gaps = gapsOf(proven, from, to)
  const silent = gaps.filter(({ kind }) => !listedGaps.includes(kind))
  const beats = logs.map((log) => checkActiveSets(log.events, log.early))
  const { exceptions, untold } = checkGrants(proven)
  exceptions.push(...beats.flatMap((one) => one.exceptions), ...checkRecordings(events))
  const all = [
    ...(site?.absent ?? []).map(
      (node) =>
        `the log of ${node} is not in the package: of what went through that gateway nothing is shown`,
    ),
    ...logs.flatMap((log) => outsideOf(log, from, to)),
    ...untold,
    ...beats
      .flatMap((one) => one.untold)
      .map(
        (where) =>
          `the heartbeat ${eventText(where)} names sessions that began before the package does`,
      ),
  ]
  const inside = events.filter((event) => event['time'] >= from && event['time'] <= to)
  const recoveries = inside
    .filter((event) => ['log.recovered', 'log.prune'].includes(code(event)))
    .map(toldBy)
  const provable = silent.length === 0 && all.length === 0
  const listed = recoveries.length > 0 || gaps.length > 0
  return {
    outcome: provable ? 'proven' : 'not-provable',
    words: provable ? (listed ? 'complete with listed recoveries' : 'complete') : 'not provable',
    gaps,
    recoveries,
    unconfirmed: inside.filter(({ undone }) => undone !== undefined).map(toldBy),
    exceptions,
    untold: all,
  }
}

/**
 * Whether it is a lock, or the end of one, that shuts out of this device too: of a person, a company, a zone or of all as
 * well; not one of another device or of another's process.
 * @param {Event} event @param {string} device
 */
function shutsOut(event, device) {
  if (!['session.lock', 'session.unlock'].includes(code(event))) return false
  const { scope, target } = own(event)
  if (scope === 'device') return target === device
  return scope !== 'process' || String(target).startsWith(`${device}/`)
}

/**
 * Who could reach a device, who did, on whose approval, doing what: [from, to] in epoch ms; every device without a name.
 * @param {Event[]} events @param {number} from @param {number} to @param {string} [device]
 */
function answer(events, from, to, device) {
  const grants = [...grantsOf(events).values()].filter(
    (grant) =>
      (device === undefined || grant.devices.includes(device)) &&
      grant.notBefore <= to &&
      openUntil(grant) >= from &&
      (grant.activated ?? Number.POSITIVE_INFINITY) <= to,
  )
  const about = events.filter((event) => device === undefined || own(event)['device'] === device)
  const inside = about.filter((event) => event['time'] >= from && event['time'] <= to)
  const sessions = [...sessionsOf(about)].filter(
    ([, { start, end }]) =>
      (start?.['time'] ?? 0) <= to && (end?.['time'] ?? Number.POSITIVE_INFINITY) >= from,
  )
  /** @type {Map<string, Event[]>} */
  const acts = new Map()
  for (const event of events) {
    if (
      !['ot.write', 'ot.deny', 'ot.violation', 'http.request'].includes(code(event)) ||
      own(event)['session'] === undefined
    )
      continue
    const key = sessionKey(event)
    const those = acts.get(key)
    if (those === undefined) acts.set(key, [event])
    else those.push(event)
  }
  return {
    grants,
    sessions: sessions.map(([key, session]) => ({ ...session, acts: acts.get(key) ?? [] })),
    denied: inside.filter(
      (event) =>
        code(event) === 'session.deny' ||
        (code(event) === 'grant.request' && event['status_id'] === 2),
    ),
    cuts: events.filter(
      (event) =>
        event['time'] >= from &&
        event['time'] <= to &&
        (device === undefined ||
          String(own(event)['device']).split(',').includes(device) ||
          shutsOut(event, device)) &&
        [
          'session.kill',
          'session.lock',
          'session.unlock',
          'device.quarantine',
          'grant.revoke',
          'grant.reject',
          'cert.revoke',
          'finding.break_glass',
        ].includes(code(event)),
    ),
  }
}

/** Whether it came to be: not what says that another did not, nor that other. @param {Event} event */
const wasDone = ({ undone, settles }) => undone === undefined && settles === undefined

/** @param {number} n @param {string} noun */
const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`
/** @param {number} ms */
const timeText = (ms) => new Date(ms).toISOString().replace('T', ' ').replace('.000Z', 'Z')

// ------------------------------------------------------------------ 6. what people read, made of what is proven

/**
 * @typedef {{ readonly id: string, readonly framework: string, readonly edition: string, readonly ref: string, readonly title: string, readonly gist: string, readonly wording: 'O' | 'S' | 'T' | 'U', readonly source: string, readonly checked_by?: string, readonly checked_on?: string, readonly feature: readonly string[], readonly query: readonly string[], readonly expect: 'rows' | 'empty', readonly limits: string }} Control
 *   a clause and what it is asked: `gist` is a paraphrase; `wording` says how well the clause's own is known (O compared with the official text, S secondary, T title only, U memory); `limits`, what the evidence does not show
 * @typedef {{ readonly proven: Proven, readonly from: number, readonly to: number }} Question epoch ms
 * @typedef {{ node?: string, epoch: number | null, idx: number, time: string, event: string, who: string, device: string, process: string, session: string, grant: string, outcome: string, detail: string }} EvidenceRow
 *   where it stands, and what it says
 * @typedef {{ control: Control, rows: readonly EvidenceRow[], exceptions: number }} Answered
 *   one control with its rows; where none should be, every row is an exception and stands first
 * @typedef {{ question: Question, judgement: Judgement, controls: readonly Answered[], device: string | undefined }} Report
 * @typedef {{ from: number, to: number, framework: string | undefined, device: string | undefined, catalogueSha256: string }} Asked epoch ms
 * @typedef {{ name: string, size: number, sha256: string, packed_sha256: string }} Listed
 */

/** Counts up with every change of what these functions write: another release's package is not called forged. */
const rendering = 6
/** The same for packages of several gateways: those of one log are written as ever. */
const siteRendering = 7
/** @param {Proven} proven */
const renderingOf = ({ site }) => (site === null ? rendering : siteRendering)
const disclaimer = 'Mapping, not legal advice.'
/** @param {Control} control */
const caveat = ({ wording }) =>
  wording === 'O' ? '' : `Clause wording not checked against the official text (${wording}).`

/** @type {readonly (keyof EvidenceRow)[]} */
const columns = [
  'epoch',
  'idx',
  'time',
  'event',
  'who',
  'device',
  'process',
  'session',
  'grant',
  'outcome',
  'detail',
]

/** @param {Proven} proven @returns {readonly (keyof EvidenceRow)[]} */
const columnsOf = ({ site }) => (site === null ? columns : ['node', ...columns])

/** @param {unknown} value @returns {string} */
function plainText(value) {
  if (value === undefined || value === null) return ''
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** @param {Event} event @param {string} [detail] @returns {EvidenceRow} */
function rowOf(event, detail) {
  const facts = own(event)
  return {
    ...whereOf(event),
    time: new Date(event['time']).toISOString(),
    event: code(event),
    who: plainText(event['actor']?.user?.name ?? event['actor']?.user?.uid),
    device: plainText(facts['device']),
    process: plainText(facts['process']),
    session: plainText(facts['session']),
    grant: plainText(facts['grant']),
    outcome: outcomeOf(event),
    detail: `${undoneText(event)}${detail ?? plainText(event['message'])}`,
  }
}

/** @param {Event} event */
function outcomeOf(event) {
  const { undone } = event
  if (undone !== undefined) return effectOf(undone) === 'none' ? 'without effect' : 'not confirmed'
  if (event['status_id'] === 1) return 'success'
  return `failure ${plainText(own(event)['reason'])}`.trim()
}

/** @param {Question} question @returns {Event[]} */
function inRange({ proven, from, to }) {
  return proven.events.filter((event) => event['time'] >= from && event['time'] <= to)
}

/** @typedef {(question: Question) => EvidenceRow[]} Ask */

/** Events of these codes, or of codes that begin so where a name ends in a dot.
 * @param {string[]} names @returns {Ask} */
function eventsOf(...names) {
  const wanted = (/** @type {string} */ one) =>
    names.some((name) => (name.endsWith('.') ? one.startsWith(name) : one === name))
  return (question) =>
    inRange(question)
      .filter((event) => wanted(code(event)))
      .map((event) => rowOf(event))
}

/** @param {string} field @param {string[]} names @returns {Ask} */
function withField(field, ...names) {
  return (question) =>
    inRange(question)
      .filter((event) => names.includes(code(event)) && own(event)[field] !== undefined)
      .map((event) => rowOf(event, plainText(own(event)[field])))
}

/** Sessions of people that began without more than one factor, as their identity provider told it.
 * @type {Ask} */
function withoutMfa(question) {
  return inRange(question)
    .filter((event) => code(event) === 'session.start' && own(event)['party'] !== 'service')
    .filter((event) => {
      /** @type {string[]} */
      const methods = own(event)['authn']?.methods ?? []
      return !methods.includes('mfa') && !methods.includes('hwk') && methods.length < 2
    })
    .map((event) => rowOf(event, `methods ${plainText(own(event)['authn'])}`))
}

/** @type {Ask} */
function outsideGrant({ proven, from, to }) {
  const byMark = new Map(proven.events.map((event) => [eventMark(whereOf(event)), event]))
  return checkGrants(proven).exceptions.flatMap(({ what, ...where }) => {
    const event = byMark.get(eventMark(where))
    if (event === undefined || event['time'] < from || event['time'] > to) return []
    return [rowOf(event, what)]
  })
}

/** The sessions active at the end of the time asked for.
 * @type {Ask} */
function activeAt({ proven, to }) {
  return [...sessionsOf(proven.events).values()].flatMap(({ start, end }) =>
    start !== null && start['time'] <= to && (end === null || end['time'] > to)
      ? [rowOf(start, `active at ${new Date(to).toISOString()}`)]
      : [],
  )
}

/** @type {Ask} */
function logHealth(question) {
  const gaps = gapsOf(question.proven, question.from, question.to)
  const silent = gaps.map((gap) => ({
    ...(gap.node === undefined ? {} : { node: gap.node }),
    epoch: gap.epoch,
    idx: gap.idx,
    time: new Date(gap.from).toISOString(),
    event: 'heartbeat gap',
    who: '',
    device: '',
    process: '',
    session: '',
    grant: '',
    outcome: gap.kind,
    detail: `no heartbeat until ${new Date(gap.to).toISOString()}`,
  }))
  const told = eventsOf(
    'log.open',
    'log.close',
    'log.recovered',
    'log.prune',
    'log.epoch_end',
    'log.epoch_begin',
    'log.state',
    'sink.',
    'recording.fail',
  )
  return [...silent, ...told(question)]
}

/** Every question a catalogue may ask. A name outside this table is an error of the catalogue.
 * @type {Readonly<Record<string, Ask>>} */
export const queries = {
  sessions: eventsOf('session.start', 'session.end', 'session.deny'),
  'active-at': activeAt,
  'no-mfa': withoutMfa,
  'outside-grant': outsideGrant,
  cuts: eventsOf('session.kill', 'session.lock', 'session.unlock', 'device.quarantine'),
  grants: eventsOf('grant.'),
  offboard: eventsOf(
    'grant.revoke',
    'cert.revoke',
    'device.retire',
    'session.kill',
    'session.lock',
  ),
  auth: eventsOf('auth.'),
  policy: eventsOf('policy.upload', 'policy.activate', 'policy.rollback', 'finding.break_glass'),
  certs: eventsOf('cert.'),
  crypto: withField('tls_version', 'tunnel.up', 'tunnel.renew'),
  process: (question) => [
    ...withField('observed', 'session.end')(question),
    ...eventsOf('finding.process_mismatch')(question),
  ],
  ot: eventsOf('ot.'),
  recordings: eventsOf('recording.'),
  'log-health': logHealth,
  changes: eventsOf('admin.call', 'node.', 'sink.add', 'sink.change', 'sink.remove'),
  inventory: eventsOf('device.enroll', 'device.retire', 'device.inventory', 'device.resume'),
}

/** A cell that a spreadsheet takes as text, whatever a person wrote into it.
 * @param {string | number | null | undefined} value */
function cell(value) {
  const text = String(value ?? '')
  const plain = /^[=+\-@\t\r]/.test(text) && typeof value === 'string' ? `'${text}` : text
  return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain
}

/** @type {readonly string[]} */
const recordingColumns = [
  'recording',
  'recipients',
  'track',
  'part',
  'file',
  'sha256',
  'bytes',
  't0',
  't1',
  'torn',
  'parts',
  'root',
]

/** What was recorded, sealed to whom, its hashes, and who looked at it. @param {Question} question */
function recordingsCsv(question) {
  const names = columnsOf(question.proven)
  const wanted = (/** @type {Event} */ event) =>
    code(event).startsWith('recording.') ||
    (code(event) === 'session.start' && own(event)['recording'] !== undefined)
  const lines = inRange(question)
    .filter(wanted)
    .map((event) => {
      const row = rowOf(event)
      const facts = own(event)
      return [
        ...names.map((name) => cell(row[name])),
        ...recordingColumns.map((name) => cell(plainText(facts[name]))),
      ].join(',')
    })
  return `${[[...names, ...recordingColumns].join(','), ...lines].join('\r\n')}\r\n`
}

/** @param {readonly EvidenceRow[]} rows @param {readonly (keyof EvidenceRow)[]} names */
function csvOf(rows, names) {
  const lines = rows.map((row) => names.map((name) => cell(row[name])).join(','))
  return `${[names.join(','), ...lines].join('\r\n')}\r\n`
}

/** Asks each query once, however many controls want it.
 * @param {Question} question @returns {(name: string) => readonly EvidenceRow[]} */
function asker(question) {
  /** @type {Map<string, readonly EvidenceRow[]>} */
  const known = new Map()
  return (name) => {
    const rows = known.get(name) ?? queries[name]?.(question) ?? []
    known.set(name, rows)
    return rows
  }
}

/** @param {Control} control @param {(name: string) => readonly EvidenceRow[]} ask @returns {Answered} */
function answerControl(control, ask) {
  const asked = control.query.flatMap(ask)
  const strict = control.query.includes('outside-grant')
  const outside = new Set(ask('outside-grant').map(eventMark))
  const isException = (/** @type {EvidenceRow} */ row) =>
    control.expect === 'empty' || (strict && outside.has(eventMark(row)))
  const rows = [...asked.filter(isException), ...asked.filter((row) => !isException(row))]
  return { control, rows, exceptions: asked.filter(isException).length }
}

const obeyed = /(?![\t\n])[\p{Cc}\p{Cf}\u2028\u2029]/gu
/** @param {string} text @returns {string} what a screen would obey (controls, marks that turn the order of writing round) is shown */
export const shownText = (text) =>
  text.replace(
    obeyed,
    (one) => `<U+${(one.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}>`,
  )

/** @param {unknown} value */
function esc(value) {
  const text = typeof value === 'string' ? value : (JSON.stringify(value ?? '') ?? '')
  const shown = value === undefined || value === null ? '' : text
  return shownText(shown).replace(/[&<>"']/g, (found) => `&#${found.charCodeAt(0)};`)
}

/** @param {number} ms */
const stamp = (ms) => new Date(ms).toISOString().slice(0, 19).replace('T', ' ')
/** @param {Event | null} event */
const person = (event) =>
  String(event?.['actor']?.user?.name ?? event?.['actor']?.user?.uid ?? 'unknown')
/** @param {Event | null} event @returns {Record<string, any>} */
const factsOf = (event) => (event === null ? {} : own(event))
/** @param {Event | null} event */
const sequence = (event) => (event === null ? '' : eventMark(whereOf(event)))

/** @param {readonly string[]} head @param {readonly (readonly string[])[]} rows @param {string} empty */
function table(head, rows, empty) {
  if (rows.length === 0) return `<p class="none">${esc(empty)}</p>`
  const line = (/** @type {readonly string[]} */ cells, /** @type {string} */ tag) =>
    `<tr>${cells.map((one) => `<${tag}>${one}</${tag}>`).join('')}</tr>`
  return `<table><thead>${line(head.map(esc), 'th')}</thead><tbody>${rows.map((row) => line(row, 'td')).join('\n')}</tbody></table>`
}

/** @type {Readonly<Record<string, string>>} */
const verdicts = {
  complete: 'Complete: nothing else happened through this gateway in that time.',
  'complete with listed recoveries':
    'Complete, with the interruptions listed below: nothing else was let through in that time.',
  'not provable': 'Not provable for all of that time: what is missing is listed below.',
}

/** @type {Readonly<Record<string, string>>} */
const siteVerdicts = {
  complete: 'Complete: nothing else happened through the gateways named below in that time.',
  'complete with listed recoveries':
    'Complete, with the interruptions listed below: nothing else was let through by the gateways named below in that time.',
  'not provable':
    'Not provable for all of that time, or not of every gateway: what is missing is listed below.',
}

/** @param {Proven} proven @param {string} words */
const verdictText = ({ site }, words) => (site === null ? verdicts : siteVerdicts)[words] ?? words

/** @param {Gap} gap @param {boolean} early whether anything came before the package's first event */
function gapText({ kind }, early) {
  return {
    stopped: 'the gateway was stopped in order; it lets nobody through while it is',
    crashed: 'the gateway ended without a word and was started again; no session could begin',
    clock:
      'the clock was set, or the machine stood still, and heartbeats went on: the gateway did nothing that is missing, or this time passed twice',
    silent: 'no heartbeat although the gateway ran: what was active is not attested',
    before: early
      ? 'the package begins later: what came before is not in it'
      : 'the log says nothing of this time yet',
    after: 'the log says nothing of this time any more',
  }[kind]
}

/** @type {Readonly<Record<string, string>>} */
const endWords = { reject: 'rejected', revoke: 'revoked', burn: 'given back' }

/** How it came to its end before its time, and what was to end it and did not, or not surely. @param {Grant} grant */
function endText({ ended, unconfirmed }) {
  const tried = unconfirmed.map(
    (one) =>
      `, ${unendedWords(one)} when ${one.who} had it ${endWords[one.how] ?? one.how} (${eventText(whereOf(one.event))})`,
  )
  const end =
    ended === null || ended.how === 'expire'
      ? ''
      : `, when it was ${endWords[ended.how] ?? ended.how} by ${ended.who} (${eventText(whereOf(ended.event))})`
  return `${end}${tried.join('')}`
}

/** @param {Act} act */
const unendedWords = ({ event: { undone } }) =>
  effectOf(undone) === 'none' ? 'and did not end' : 'and is not known to have ended'

/** What it was limited to beside its time. @param {Grant} grant */
function limitsText({ maxUses, maxBytes }) {
  const limits = []
  if (maxUses !== Number.POSITIVE_INFINITY) limits.push(`for ${count(maxUses, 'session')}`)
  if (maxBytes !== Number.POSITIVE_INFINITY) limits.push(`for ${count(maxBytes, 'byte')}`)
  return limits.map((limit) => `${limit}, `).join('')
}

/** @param {number} ms */
function lengthText(ms) {
  const seconds = Math.round(ms / 1000)
  if (seconds % 3600 === 0) return `${seconds / 3600} h`
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`
}

/** @param {Grant} grant */
function timeOfGrant(grant) {
  const { notAfter, firstUse, maxMs, ended, unconfirmed } = grant
  const small = []
  if (Number.isFinite(maxMs))
    small.push(
      firstUse === null
        ? `window to ${stamp(notAfter)}, ${lengthText(maxMs)} from the first use: never used`
        : `window to ${stamp(notAfter)}, ${lengthText(maxMs)} from the first use at ${stamp(firstUse)}`,
    )
  const limits = limitsText(grant)
  if (limits !== '') small.push(limits.slice(0, -2))
  if (ended !== null && ended.how !== 'expire')
    small.push(
      `${endWords[ended.how] ?? ended.how} ${stamp(ended.time)} by ${ended.who} ${sequence(ended.event)}`,
    )
  else if (ended !== null) small.push(`ended by itself ${sequence(ended.event)}`)
  for (const one of unconfirmed)
    small.push(
      `${unendedWords(one)} when ${one.who} had it ${endWords[one.how] ?? one.how} ${stamp(one.time)} ${sequence(one.event)}, see ${sequence(one.event['undone'])}`,
    )
  const lines = small.map((line) => `<br><small>${esc(line)}</small>`).join('')
  return `${stamp(grant.notBefore)}<br>to ${stamp(openUntil(grant))}${lines}`
}

/** @param {Grant} grant @param {number} sessions */
function grantRow(grant, sessions) {
  const approved = grant.approvals.map(
    ({ who, time, event }) =>
      `${esc(who)}${event['undone'] === undefined ? '' : ' (not confirmed)'}<br><small>${stamp(time)} ${sequence(event)}</small>`,
  )
  return [
    `${esc(grant.who)}<br><small>${esc(grant.id)} ${sequence(grant.request)}</small>`,
    `${esc(grant.devices.join(', '))} / ${esc(grant.processes.join(', '))}`,
    timeOfGrant(grant),
    approved.length === 0 ? 'nobody: policy asked for none' : approved.join('<br>'),
    `${esc(grant.reason)}${grant.ticket === '' ? '' : `<br><small>ticket ${esc(grant.ticket)}</small>`}`,
    sessions === 0 ? 'no' : count(sessions, 'session'),
  ]
}

/** @param {Event} event */
function actText(event) {
  const facts = factsOf(event)
  if (code(event) === 'http.request') {
    const more =
      facts['count'] === undefined
        ? ''
        : `(${facts['count'] === 1 ? 'once' : `${esc(facts['count'])} times`} more)`
    return `${esc(facts['method'])} ${esc(facts['path'])} ${event['status_id'] === 1 ? more : '(refused)'}`
  }
  const what = `unit ${esc(facts['unit'])} function ${esc(facts['function_code'])} address ${esc(facts['address'])} × ${esc(facts['quantity'])}`
  return `${code(event) === 'ot.write' ? 'wrote' : 'was refused'}: ${what}`
}

/** How many acts these tell of: one of them may stand for several that were alike. @param {readonly Event[]} acts */
const actsIn = (acts) =>
  acts.reduce((sum, event) => sum + (Number(factsOf(event)['count'] ?? 1) || 1), 0)

const actsShown = 40

/** @param {Session & { acts: Event[] }} session @param {readonly Grant[]} grants */
function sessionRow(session, grants) {
  const { start, end, acts } = session
  const facts = { ...factsOf(end), ...factsOf(start) }
  const grant = grants.find(({ id }) => id === facts['grant'])
  const observed = factsOf(end)['observed']
  const program =
    observed?.exe === undefined
      ? ''
      : `<br><small>program ${esc(observed.exe)} ${esc(String(observed.sha256 ?? '').slice(0, 16))}</small>`
  const more =
    acts.length > actsShown
      ? [`and ${actsIn(acts.slice(actsShown))} more, in log/events.ndjson`]
      : []
  const done = [...acts.slice(0, actsShown).map(actText), ...more].join('<br>')
  const bytes =
    end === null
      ? ''
      : `${esc(factsOf(end)['bytes_in'] ?? '?')} bytes in, ${esc(factsOf(end)['bytes_out'] ?? '?')} out`
  return [
    `${esc(person(start ?? end))}<br><small>${esc(facts['party'])} ${esc(session.id)} ${sequence(start)}${throughText(start ?? end)}</small>`,
    `${esc(facts['device'])} / ${esc(facts['process'])}${program}`,
    `${start === null ? 'before' : stamp(start['time'])}<br>to ${end === null ? 'still open' : `${stamp(end['time'])}<br><small>${esc(factsOf(end)['reason'])} ${sequence(end)}</small>`}`,
    grant === undefined
      ? esc(facts['grant'])
      : `${grant.approvals.map(({ who }) => esc(who)).join(', ') || 'no approval needed'}<br><small>${esc(grant.id)}</small>`,
    `${bytes}${recordedText(start, end)}${done === '' ? '' : `<br>${done}`}`,
  ]
}

/** At which gateway, where there are several. @param {Event | null} event */
function throughText(event) {
  const node = event?.['node']
  return node === undefined ? '' : `<br>through ${esc(node)}`
}

/** @param {Event | null} start @param {Event | null} end */
function recordedText(start, end) {
  const format = factsOf(start)['recording']
  if (format === undefined) return ''
  const root = factsOf(end)['recording_root']
  const what = format === 'flow' ? 'bytes a second alone' : `as ${format}`
  return `<br><small>recorded ${esc(what)}${root === undefined ? '' : `, root ${esc(String(root).slice(0, 16))}`}</small>`
}

/** @param {Event} event */
function eventRow(event) {
  return [
    sequence(event),
    stamp(event['time']),
    esc(event['metadata'].event_code),
    esc(person(event)),
    esc(`${undoneText(event)}${event['message']}`),
  ]
}

/** @param {Report} report @param {string} device */
function deviceSection({ question }, device) {
  const { grants, sessions, denied, cuts } = answer(
    question.proven.events,
    question.from,
    question.to,
    device,
  )
  const under = (/** @type {Grant} */ { id }) =>
    sessions.filter(({ start, end }) => factsOf(start ?? end)['grant'] === id).length
  return `<section><h2>${esc(device)}</h2>
<h3>Who could reach it: ${count(grants.length, 'grant')} in force</h3>
${table(
  ['Who', 'What', 'When (UTC)', 'Approved by', 'Why', 'Used'],
  grants.map((grant) => grantRow(grant, under(grant))),
  'Nobody could: no grant for it was in force.',
)}
<h3>Who did: ${count(sessions.length, 'session')}</h3>
${table(
  ['Who', 'What', 'When (UTC)', 'On whose approval', 'Doing what'],
  sessions.map((session) => sessionRow(session, grants)),
  'Nobody did.',
)}
<h3>Refused, cut, locked or revoked</h3>
${table(['Event', 'When (UTC)', 'What', 'Who', 'In words'], [...denied, ...cuts].map(eventRow), 'Nothing.')}
</section>`
}

/** @param {Report} report @returns {string[]} */
function devicesOf({ question, device }) {
  if (device !== undefined) return [device]
  /** @type {Set<string>} */
  const found = new Set()
  for (const event of question.proven.events) {
    const one = factsOf(event)['device']
    const named = String(event['metadata'].event_code)
    if (typeof one === 'string' && /^(session|grant)\./.test(named))
      for (const name of one.split(',')) found.add(name)
  }
  return [...found].toSorted()
}

/** An epoch's events, as they are in the package. @param {Epoch} epoch */
const spanText = ({ epoch, first, last }) =>
  `${eventMark({ epoch, idx: first })} to ${eventMark({ epoch, idx: last - 1 })}`

/** Why nothing can be missing between two epochs, where there are several. @param {Proven} proven @returns {string[]} */
function successionItems({ epochs }) {
  if (epochs.length < 2) return []
  return [
    `Its keys were replaced ${epochs.length === 2 ? 'once' : `${epochs.length - 1} times`} in what is shown here, so it is ${epochs.length} epochs, each under keys of its own: ${epochs.map((one) => `${esc(one.origin)}, ${spanText(one)}`).join('; ')}. The very last event of each but the newest, signed by its own keys, names the next one and its keys; the first event of that, signed by these, holds the last signed head of the one before. So nothing can stand between two of them, and none can be left out.`,
  ]
}

/** @param {Proven} proven what the log is called, and where it begins and ends here */
function logItem({ epochs, events }) {
  const [first, last] = [events[0], events.at(-1)]
  const marks = [first, last].map((event) => sequence(event ?? null))
  return `The log ${esc(epochs.at(-1)?.origin)} is a Merkle tree of events; its heads are signed. This package holds <b>every</b> event from ${marks.join(' to ')}. Hashing them in order gives the signed root: had one been left out, added, changed or moved, it would not.`
}

/** What holds several logs together. @param {Proven} proven @returns {string[]} */
function siteItems({ site }) {
  if (site === null) return []
  const here = site.logs.map(({ node }) => node).join(', ')
  const all =
    site.absent.length === 0
      ? `All of them are here: ${here}.`
      : `Here are ${here}; not here: ${site.absent.join(', ')}.`
  return [
    `Whoever made this package named the gateways of this site: ${esc(site.named.join(', '))}. ${esc(all)} Hold that against a list of your own: a gateway that nobody names is not missed. The programs do so with the keys that you give them, and with <code>--node</code>.`,
    'Each gateway has a log of its own, proven by itself under its own keys; an event is named with its gateway. Then they are read together, in order of time, as a grant that was approved at one gateway lets in at another. Where the order of two events of different gateways matters, their clocks are taken to differ by no more than 5 seconds.',
  ]
}

/** @param {Report} report */
function proofSection({ question, judgement }) {
  const { proven } = question
  const items = [
    ...siteItems(proven),
    ...logsOf(proven).flatMap((log) => [logItem(log), ...successionItems(log)]),
    'An event is on disk before the gateway acts on it, so what is not in the log was not done through this gateway. Of web requests within one second that are alike and only read the first is; how many had the same answer is said behind it.',
    'At least every 60 seconds the log commits to the set of active sessions, also when it is empty. Silence of more than 90 seconds is listed below.',
    judgement.exceptions.length === 0
      ? 'Every session began under a grant in force, with the approvals it needed, none of them by its requester.'
      : proven.site === null
        ? `${judgement.exceptions.length} sessions do not agree with their grants; they are listed below.`
        : `What should not be is listed below: ${count(judgement.exceptions.length, 'exception')}.`,
    proven.site === null ? checkItem : siteCheckItem,
  ]
  const gaps = judgement.gaps.map((gap) => [
    esc(stamp(gap.from)),
    esc(stamp(gap.to)),
    esc(gap.kind),
    esc(gapText(gap, logOf(proven, gap.node).early)),
    eventMark(gap),
  ])
  const rest = [
    ...judgement.recoveries.map((one) => `${eventMark(one)}: ${one.message}`),
    ...judgement.unconfirmed.map((one) => `${eventMark(one)}: ${one.message}`),
    ...judgement.untold,
    ...judgement.exceptions.map((one) => `${eventMark(one)}: ${one.what}`),
  ]
  return `<section><h2>How do I know there is nothing else?</h2><ol>${items.map((item) => `<li>${item}</li>`).join('')}</ol>
<h3>Times without a heartbeat</h3>${table(['From (UTC)', 'To', 'Kind', 'Meaning', 'Event'], gaps, 'None.')}
<h3>Recoveries, exceptions, what was recorded but not done or not confirmed, and what cannot be told</h3>${rest.length === 0 ? '<p class="none">None.</p>' : `<ul>${rest.map((line) => `<li>${esc(line)}</li>`).join('')}</ul>`}
<h3>What this cannot show</h3><p>Access around Sallyport; a gateway whose program was replaced; duties of organisation. ${esc(beforeText(proven))} Times are those of the gateway&#39;s clock.</p></section>`
}

const checkItem =
  'Check it yourself, offline: <code>node verify.mjs PACKAGE.zip --key KEYFILE</code> or <code>python3 verify.py PACKAGE.zip --key KEYFILE</code>, with the program and the keys from whoever you trust for them. It makes this page anew from the events and says whether it is the same; until then this page proves nothing.'
const siteCheckItem =
  'Check it yourself, offline: <code>node verify.mjs PACKAGE.zip --key KEYFILE --node GATEWAY</code>, with a <code>--node</code> for each gateway of your own list, and with the program and the keys from whoever you trust for them. It makes this page anew from the events and says whether it is the same; until then this page proves nothing. <code>python3 verify.py</code>, with the same words behind it, proves the logs and says nothing of this page.'

/** What of before the package it says nothing of. @param {Proven} proven */
function beforeText({ early, events, site }) {
  const [first] = events
  if (site !== null)
    return early
      ? 'Grants that were requested before this package begins; a gateway that nobody named.'
      : 'Anything before the first events of these logs; a gateway that nobody named.'
  return early && first !== undefined
    ? `Grants that were requested before ${eventText(whereOf(first))}.`
    : 'Anything before the first event of this log.'
}

const rowsShown = 12

/** @param {Answered} answered */
function controlSection({ control, rows, exceptions }) {
  const shown = rows
    .slice(0, rowsShown)
    .map((row) => [
      eventMark(row),
      esc(row.time.slice(0, 19).replace('T', ' ')),
      esc(row.event),
      esc(row.who),
      esc(row.detail),
    ])
  const more =
    rows.length > rowsShown
      ? `<p class="none">and ${rows.length - rowsShown} more in controls/${esc(control.id)}.csv</p>`
      : ''
  const state =
    control.expect === 'empty'
      ? rows.length === 0
        ? 'as it should be: none'
        : `${exceptions} exceptions`
      : `${rows.length} rows${exceptions === 0 ? '' : `, ${exceptions} exceptions first`}`
  return `<section class="control"><h3>${esc(control.edition)} ${esc(control.ref)}: ${esc(control.title)}</h3>
<p>${esc(control.gist)} <small>${esc(disclaimer)} ${esc(caveat(control))} ${esc(control.limits)}</small></p><p><b>${esc(state)}</b></p>
${rows.length === 0 ? '' : table(['Event', 'When (UTC)', 'What', 'Who', 'In words'], shown, '')}${more}</section>`
}

const style = `@page{size:A4;margin:16mm 14mm 18mm;@bottom-right{content:counter(page) " / " counter(pages);font:9px sans-serif}}
:root{color-scheme:light}body{font:13px/1.45 system-ui,sans-serif;color:#1a1f24;max-width:1000px;margin:24px auto;padding:0 16px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:28px 0 6px;border-bottom:2px solid #1a1f24;padding-bottom:3px}h3{font-size:14px;margin:16px 0 4px}
.verdict{border:2px solid;border-radius:4px;padding:10px 14px;margin:14px 0;font-size:15px}.good{border-color:#1b6b3a;background:#eef7f1}.bad{border-color:#a3261d;background:#fbeeed}
table{border-collapse:collapse;width:100%;margin:4px 0 8px}th,td{text-align:left;vertical-align:top;border-bottom:1px solid #c9d0d6;padding:4px 8px 4px 0;overflow-wrap:anywhere}td:first-child{min-width:9em}th{font-size:11px;color:#4a545d}
thead{display:table-header-group}tr{break-inside:avoid}h2,h3{break-after:avoid}small{color:#56616b;font-size:11px}.none{color:#56616b;margin:2px 0}code{font-size:12px;overflow-wrap:anywhere}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:8px 0}dt{color:#56616b}dd{margin:0;overflow-wrap:anywhere}
@media print{body{margin:0;max-width:none;padding:0;font-size:10.5px}section.control{break-inside:avoid-page}*{print-color-adjust:exact}}`

/** Which gateway's it is, where there are several. @param {Proven} log */
function nodeRow({ events: [first] }) {
  const { node } = nodeIn(first)
  return node === undefined ? '' : `<dt><b>Gateway</b></dt><dd><b>${esc(node)}</b></dd>`
}
/** @param {Proven} proven */
const absentRows = ({ site }) =>
  (site?.absent ?? [])
    .map(
      (node) =>
        `<dt><b>Gateway</b></dt><dd><b>${esc(node)}</b><br>Its log is NOT in this package: of what went through it nothing is shown.</dd>`,
    )
    .join('')

/** @param {Epoch} epoch */
function epochRows(epoch) {
  const { origin, heads, predecessor, successor } = epoch
  const on = successor === null ? '' : `<br>It has ended, and goes on as ${esc(successor)}.`
  const from = predecessor === null ? '' : `<br>It goes on from ${esc(predecessor)}.`
  return `<dt>Log</dt><dd>${esc(origin)}${from}${on}</dd><dt>Events</dt><dd>${spanText(epoch)}, all of them in this package</dd><dt>Signed heads</dt><dd>${heads}</dd>`
}

/** The whole page, self-contained: no script, no request.
 * @param {Report} asked */
function reportHtml(asked) {
  const { question, judgement, controls, device } = asked
  const { proven, from, to } = question
  const good = judgement.outcome === 'proven' && judgement.exceptions.length === 0
  const title = `Evidence ${device ?? ''} ${stamp(from)} to ${stamp(to)}`.replace('  ', ' ')
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${esc(title)}</title><style>${style}</style></head><body>
<h1>${device === undefined ? 'Remote access' : `Access to ${esc(device)}`}</h1>
<p>${stamp(from)} to ${stamp(to)} UTC</p>
<div class="verdict ${good ? 'good' : 'bad'}"><b>${esc(verdictText(proven, judgement.words))}</b><br>${judgement.exceptions.length === 0 ? 'No exceptions.' : `${judgement.exceptions.length} exceptions.`}</div>
<dl>${logsOf(proven)
    .map((log) => `${nodeRow(log)}${log.epochs.map(epochRows).join('')}`)
    .join('')}${absentRows(proven)}</dl>
${devicesOf(asked)
  .map((name) => deviceSection(asked, name))
  .join('\n')}
${proofSection(asked)}
${controls.length === 0 ? '' : `<section><h2>By clause</h2><p><b>${esc(disclaimer)}</b></p></section>${controls.map(controlSection).join('\n')}`}
</body></html>
`
}

/** The package's own README. */
const readme = `What is in here, and what to trust

  log/              PROVEN, once a verifier of your own says so: every event of that time, byte for byte, and the signed
                    heads that no event can be missing between; where the log's keys were replaced in that time, a
                    folder for each epoch
  report.html       for reading and printing
  sessions.csv      sessions; grants.csv: grants, who asked and who approved; recordings.csv: what was recorded, sealed
                    to whom, the hash of each part, and who looked at it
  controls/         the events by the clause they speak to; a mapping, not legal advice
  manifest.json     the time asked for, the verdict, and the SHA-256 of every other file
  manifest.note     where there is one: SIGNED by the log's own keys, whose holder made this package
  README.txt        this
                    DERIVED from the events: worth nothing until verify.mjs has made them anew and found the same bytes
  catalogue.json    NOT PROVEN: which clauses are asked and how they are paraphrased is an opinion
  verify.mjs        NOT PROVEN: programs. Whoever could change the rest could change them, so take them, like the keys,
  verify.py         from somebody you trust

First check, offline, with Node.js: node verify.mjs PACKAGE.zip --key KEYFILE. It names each file and what it is worth. The
proof written a second time, of log/ alone: python3 verify.py PACKAGE.zip --key KEYFILE (with openssl). Then read.

Add --device NAME to either program to hear who could reach that device, who did, on whose approval, and what was done.

The keys must come from somebody you trust for them, for instance printed when the gateway was set up. They are not in here,
because a package that brought its own keys would prove nothing. Where they were replaced since, take the newest: older ones
may have come to somebody, who could end the log with them anew.
`

/** Of a package of several gateways. */
const siteReadme = readme
  .replace(
    /  log\/              PROVEN[^]*?each epoch\n/,
    `  nodes/NAME/log/   PROVEN, once a verifier of your own says so: every event of that time of that gateway, byte for byte, and
                    the signed heads that no event can be missing between; where the log's keys were replaced in that
                    time, a folder for each epoch. Each gateway's is a log by itself, under keys of its own
`,
  )
  .replace("the log's own keys, whose holder", 'the own keys of one of the logs, whose holder')
  .replace(
    'the time asked for, the verdict,',
    'the time asked for, the gateways of the site, the verdict,',
  )
  .replace(
    'proof written a second time, of log/ alone:',
    'proof written a second time, of nodes/ alone:',
  )
  .replace(
    'The keys must come from',
    `Give the keys of every gateway of the site, and --node NAME for each of them as you know the site: one whose log is not in here is
then named, and the verdict is not "complete". What nobody names nobody misses.

The keys must come from`,
  )

/**
 * Every file of a package that is made of proven events, as it must be to the byte.
 * @param {Proven} proven @param {Judgement} judgement @param {Asked} asked @param {readonly Control[]} controls
 * @returns {Map<string, string>}
 */
export function derive(proven, judgement, asked, controls) {
  const question = { proven, from: asked.from, to: asked.to }
  const names = columnsOf(proven)
  const ask = asker(question)
  const answered = controls.map((control) => answerControl(control, ask))
  /** @type {Map<string, string>} */
  const files = new Map()
  for (const { control, rows, exceptions } of answered) {
    const { id, ref, edition, title, gist, wording, query, expect, limits } = control
    const said = { id, ref, edition, title, gist, wording, query, expect, exceptions, limits }
    const notice = `${disclaimer} ${caveat(control)}`.trim()
    files.set(`controls/${id}.json`, `${JSON.stringify({ notice, ...said, rows })}\n`)
    files.set(`controls/${id}.csv`, csvOf(rows, names))
  }
  files.set('sessions.csv', csvOf(ask('sessions'), names))
  files.set('grants.csv', csvOf(ask('grants'), names))
  files.set('recordings.csv', recordingsCsv(question))
  files.set(
    'report.html',
    reportHtml({ question, judgement, controls: answered, device: asked.device }),
  )
  files.set('README.txt', proven.site === null ? readme : siteReadme)
  return files
}

/**
 * The manifest, as it must be to the byte.
 * @param {Proven} proven @param {Judgement} judgement @param {Asked} asked @param {readonly Listed[]} entries
 */
export function manifestText(proven, judgement, asked, entries) {
  const iso = (/** @type {number} */ ms) => new Date(ms).toISOString()
  const manifest = {
    v: 1,
    rendering: renderingOf(proven),
    notice: disclaimer,
    framework: asked.framework ?? 'all',
    device: asked.device ?? null,
    catalogue_sha256: asked.catalogueSha256,
    from: iso(asked.from),
    to: iso(asked.to),
    ...(proven.site === null
      ? {}
      : { nodes: proven.site.named, nodes_left_out: proven.site.absent }),
    epochs: proven.epochs.map(({ origin, first, last, heads, predecessor, successor }) => ({
      ...(proven.site === null ? {} : { node: nodeOf(origin).node }),
      origin,
      events: { first, last: last - 1 },
      heads,
      goes_on_from: predecessor,
      goes_on_as: successor,
    })),
    keys_named_by: proven.links,
    verdict: { outcome: judgement.outcome, words: judgement.words },
    cannot_show: [
      'access around Sallyport',
      'a gateway whose program was replaced',
      'what people owe by their organisation',
      beforeText(proven).slice(0, -1).toLowerCase(),
    ],
    entries: entries
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, size, sha256: hash, packed_sha256: packed }) => ({
        name,
        size,
        sha256: hash,
        packed_sha256: packed,
      })),
  }
  return `${JSON.stringify(manifest, null, 1)}\n`
}

/** @param {Map<string, Entry>} entries @returns {Control[]} */
function controlsOf(entries) {
  const entry = entries.get('catalogue.json')
  if (entry === undefined) throw new Violated('catalogue.json', 'it is missing')
  return JSON.parse(entry.bytes.toString())
}

/** @typedef {'PROVEN' | 'SIGNED' | 'RECOMPUTED' | 'NOT PROVEN'} Standing */

/**
 * Whether the holder of the log's keys vouches for this package: a head of a tree whose only leaf is the manifest, under
 * the name of one of its epochs and `/evidence`, signed by every key of that.
 * @param {Map<string, Entry>} entries @param {Proven} proven
 * @returns {boolean} false: there is no such signature, or no key to check it with
 */
function signedManifest(entries, { keys, epochs }) {
  const entry = entries.get('manifest.note')
  const own = entries.get('manifest.json')
  if (entry === undefined || own === undefined) return false
  const note = entry.bytes.toString()
  const { origin: stated } = headIn(note)
  const signer = stated.replace(/\/evidence$/, '')
  const wrong = new Violated('manifest.note', 'it signs another package')
  if (signer === stated || epochs.every(({ origin }) => stemOf(origin) !== stemOf(signer)))
    throw wrong
  // An epoch that is not in here, of which the reader has no key, may have signed it.
  const known = keys.get(signer) ?? []
  if (known.length === 0) return false
  const head = readHead(note, known, 'manifest.note')
  if (head.size !== 1 || head.root !== leafHash(own.bytes).toString('hex')) throw wrong
  return known.some(({ key }) => key !== null)
}

/**
 * What each file of the package is worth: made anew from the proven events, and compared to the byte. A file that is not
 * what the events say is a violation; one that this program cannot make anew is not proven.
 * @param {Map<string, Entry>} entries @param {Record<string, any>} manifest @param {Proven} proven @param {Judgement} judged
 * @returns {Map<string, Standing>}
 */
function standings(entries, manifest, proven, judged) {
  /** @type {Map<string, Standing>} */
  const found = new Map([...entries.keys()].map((name) => [name, 'NOT PROVEN']))
  for (const name of found.keys())
    if (/^(?:log|nodes)\//.test(name) && !proven.files.has(name))
      throw new Violated(name, 'no epoch of the package has such a file')
  for (const [name, isProven] of proven.files) if (isProven) found.set(name, 'PROVEN')
  if (manifest['rendering'] !== renderingOf(proven)) return found
  /** @type {Asked} */
  const asked = {
    from: Date.parse(manifest['from']),
    to: Date.parse(manifest['to']),
    framework: manifest['framework'] === 'all' ? undefined : manifest['framework'],
    device: manifest['device'] ?? undefined,
    catalogueSha256: String(manifest['catalogue_sha256']),
  }
  const files = derive(proven, judged, asked, controlsOf(entries))
  files.set('manifest.json', manifestText(proven, judged, asked, manifest['entries']))
  for (const [name, text] of files) {
    const entry = entries.get(name)
    if (entry === undefined) throw new Violated(name, 'it is missing')
    if (!entry.bytes.equals(Buffer.from(text)))
      throw new Violated(name, 'it is not what the proven events say: it was not made of them')
    found.set(name, 'RECOMPUTED')
  }
  found.set('manifest.sha256', 'RECOMPUTED')
  for (const [name, standing] of found)
    if (standing === 'NOT PROVEN' && !(name in notProvenWhy) && !proven.files.has(name))
      throw new Violated(
        name,
        name.startsWith('controls/')
          ? 'no clause of catalogue.json has such a file'
          : 'no package has such a file',
      )
  return found
}

const unsignedWords =
  'NOT SIGNED as a package: anybody with a copy of the log may have chosen its time and catalogue; what is marked PROVEN below does not depend on that'
const standingWords = {
  PROVEN: 'PROVEN',
  SIGNED: 'SIGNED BY THE LOG\u2019S KEYS',
  RECOMPUTED: 'DERIVED AND RECOMPUTED',
  'NOT PROVEN': 'NOT PROVEN',
}
/** @type {Readonly<Record<string, string>>} */
const notProvenWhy = {
  'catalogue.json':
    ' (an opinion: which clauses are asked and how they are paraphrased is the choice of who made the package; those words stand in report.html and controls/ too)',
  'manifest.note': ' (no key was given that it can be checked with)',
  'verify.mjs': ' (a program: use the one you have from whoever you trust)',
  'verify.py': ' (a program: use the one you have from whoever you trust)',
}

/** @param {Map<string, Standing>} files @returns {string[]} one line a file; those of controls/ that fare alike together */
function standingLines(files) {
  /** @type {Map<string, number>} */
  const lines = new Map()
  for (const [name, standing] of files) {
    const shown = name.startsWith('controls/') ? 'controls/*' : name
    const why = standing === 'NOT PROVEN' ? (notProvenWhy[name] ?? '') : ''
    const line = `${standingWords[standing]}: ${shown}${why}`
    lines.set(line, (lines.get(line) ?? 0) + 1)
  }
  return [...lines].map(([line, n]) => (n === 1 ? line : `${line}, ${n} files`)).toSorted()
}

// ------------------------------------------------------------------ the whole

/**
 * The exit code, and above the lines what a reader must know first.
 * @param {Judgement} judged @param {Proven} proven @param {unknown} written the package's way of writing reports @param {string[]} lines
 * @returns {{ exit: number, lines: string[] }}
 */
function conclude(judged, proven, written, lines) {
  const { keys, pinned, doubts } = proven
  if (judged.exceptions.length > 0) {
    const first = 'VIOLATED: the log is as it was signed, and says what should not be'
    return { exit: 1, lines: [first, ...lines] }
  }
  const unknown = [...keys.values()]
    .flat()
    .filter(({ key }) => key === null)
    .map(
      ({ id }) => `this Node.js knows no ML-DSA-44: the signatures of key ${id} were not checked`,
    )
  const told = [...unknown, ...lines]
  if (doubts.length > 0)
    return { exit: 2, lines: [...doubts.map((doubt) => `NOT PROVABLE: ${doubt}`), ...told] }
  if (!pinned) {
    const first = 'INTACT, ORIGIN NOT PINNED: no --key was given, so this may be anybody\u2019s log'
    return { exit: 2, lines: [first, ...told] }
  }
  if (written !== renderingOf(proven)) {
    const first = `made by a release that writes reports otherwise (${String(written)}, here ${renderingOf(proven)}): only what is marked PROVEN below is`
    return { exit: 2, lines: [first, ...told] }
  }
  return { exit: judged.outcome === 'proven' ? 0 : 2, lines: told }
}

/**
 * @param {Buffer} zip @param {string[]} vkeys @param {string} [device] @param {readonly string[]} [nodes] the gateways of the site, as the reader knows it
 * @returns {{ exit: number, lines: string[] }}
 */
export function verifyPackage(zip, vkeys, device, nodes = []) {
  try {
    const entries = readZip(zip)
    const manifest = readManifest(entries)
    const keys = vkeys.map(readVkey)
    const proven = provePackage(entries, keys, manifest)
    proven.doubts.push(...unnamedDoubts(proven, nodes))
    const [from, to] = [Date.parse(manifest['from']), Date.parse(manifest['to'])]
    // Of such a time every log is complete.
    if (!(from <= to)) throw new Violated('manifest.json', 'its time ends before it begins')
    const judged = judge(proven, from, to)
    const stated = manifest['verdict']
    if (stated.words !== judged.words || stated.outcome !== judged.outcome)
      throw new Violated('manifest.json', `it says ${stated.words}, the events say ${judged.words}`)
    const files = standings(entries, manifest, proven, judged)
    const lines = report(manifest, proven, judged, device, from, to)
    if (signedManifest(entries, proven)) files.set('manifest.note', 'SIGNED')
    else if (!entries.has('manifest.note')) lines.push(unsignedWords)
    lines.push(...standingLines(files))
    return conclude(judged, proven, manifest['rendering'], lines)
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

/** Of one log or of a site, as the manifest says. @param {Map<string, Entry>} entries @param {Vkey[]} keys @param {Record<string, any>} manifest @returns {Proven} */
function provePackage(entries, keys, manifest) {
  const named = manifest['nodes']
  if (named === undefined) return proveEvents(entries, keys)
  if (!Array.isArray(named) || named.some((node) => typeof node !== 'string' || !isNodeName(node)))
    throw new Violated('manifest.json', 'it does not name the gateways of the site')
  const here = [...entries.keys()].flatMap((name) => nodeFolder.exec(name)?.[1] ?? [])
  /** @type {Set<string>} */
  const both = new Set([...named, ...here])
  const all = [...both].toSorted()
  if (JSON.stringify(all) !== JSON.stringify(named))
    throw new Violated(
      'manifest.json',
      'it does not name the gateways whose logs are here, once and in order',
    )
  return proveSite(entries, keys, named)
}

/** Gateways that the reader has in mind and this package does not. @param {Proven} proven @param {readonly string[]} nodes @returns {string[]} */
function unnamedDoubts(proven, nodes) {
  const here = new Set(logsOf(proven).map(({ epochs }) => nodeOf(epochs[0]?.origin ?? '').node))
  return nodes
    .filter((node) => !here.has(node))
    .map((node) => `the log of ${node}, which you named, is not in the package`)
}

/** Of a site each log's, behind its gateway's name. @param {Proven} proven @returns {string[]} */
function logLines({ site, ...proven }) {
  if (site === null) return epochLines({ site, ...proven })
  const { logs, named, absent } = site
  return [
    `gateways of the site, as who made the package named them: ${named.join(', ')}`,
    ...absent.map((node) => `LEFT OUT: the log of ${node} is not in the package`),
    ...logs.flatMap((log) => epochLines(log.proven).map((line) => `${log.node}: ${line}`)),
  ]
}

/** Which epochs are in it, and what joins them to each other and to those that are not. @param {Proven} proven @returns {string[]} */
function epochLines({ epochs, links, doubts }) {
  const lines = epochs.map(
    ({ origin, first, last, heads }) =>
      `log ${origin}, events ${first} to ${last - 1}, ${heads} signed heads`,
  )
  const before = epochs[0]?.predecessor ?? null
  const after = epochs.at(-1)?.successor ?? null
  if (before !== null) lines.unshift(`it goes on from ${before}, which is not in the package`)
  if (epochs.length > 1)
    lines.push(
      `${epochs.length} epochs, joined: the last event of each names the keys of the next, whose first event holds the last head of the one before`,
    )
  if (after !== null) lines.push(`it goes on as ${after}, which is not in the package`)
  if (links.length > 0) lines.push(`for the keys alone, a few events each of ${links.join(', ')}`)
  const newest = epochs.at(-1)
  const next = links.find((link) => isLater(link, newest?.origin ?? ''))
  if (newest?.successor === null && next !== undefined && doubts.length === 0)
    lines.push(
      `${newest.origin} has ended and is shown up to before its end: what ${next} holds of it begins with that`,
    )
  return lines
}

/** @param {Record<string, any>} manifest @param {Proven} proven @param {Judgement} judged @param {string | undefined} device @param {number} from @param {number} to */
function report(manifest, proven, judged, device, from, to) {
  const lines = [
    ...(proven.doubts.length > 0
      ? []
      : [`${judged.outcome === 'proven' ? 'PROVEN' : 'NOT PROVABLE'}: ${judged.words}`]),
    ...logLines(proven),
    `asked for ${manifest['from']} to ${manifest['to']}`,
    ...judged.gaps.map(
      (gap) =>
        `${listedGaps.includes(gap.kind) ? 'listed' : 'GAP'}: ${gap.kind === 'clock' ? 'the clock was set, or the machine stood still, and heartbeats went on,' : 'no heartbeat'} from ${timeText(gap.from)} to ${timeText(gap.to)} (${gap.kind}, ${eventText(gap)})`,
    ),
    ...judged.recoveries.map(
      (one) => `recovery: ${eventText(one)}, ${timeText(one.time)}: ${one.message}`,
    ),
    ...judged.unconfirmed.map(
      (one) =>
        `recorded, but not done or not confirmed: ${eventText(one)}, ${timeText(one.time)}: ${one.message}`,
    ),
    ...judged.untold.map((what) => `cannot be told: ${what}`),
    ...judged.exceptions.map((one) => `EXCEPTION: ${eventText(one)}: ${one.what}`),
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
      `  ${grant.who}: ${grant.devices.join(', ')} ${grant.processes.join(', ')}, ${timeText(grant.notBefore)} to ${timeText(openUntil(grant))}${endText(grant)}, ${limitsText(grant)}approved by ${grant.approvals.map(({ who, event }) => `${who}${event['undone'] === undefined ? '' : ' (not confirmed)'}`).join(', ') || 'nobody: policy asked for none'} (${grant.id}, ${eventText(whereOf(grant.request))})`,
    )
  lines.push(`who did: ${count(sessions.length, 'session')}`)
  for (const { id, start, end, acts } of sessions)
    lines.push(
      `  ${start === null ? 'began before the package' : `${whoOf(start)} on ${own(start)['device']}/${own(start)['process']}`}, ${start === null ? '' : timeText(start['time'])} to ${end === null ? 'open at the end' : timeText(end['time'])}, ${end === null ? '' : `${own(end)['bytes_in'] ?? '?'} bytes in, ${own(end)['bytes_out'] ?? '?'} out, ${own(end)['reason']}`}, ${actsIn(acts)} recorded acts (${id}${throughNode(start ?? end)})`,
    )
  const undone = cuts.filter((event) => event['undone'] !== undefined).length
  lines.push(
    `refused: ${denied.length}; cut, locked or revoked: ${cuts.filter(wasDone).length}${undone === 0 ? '' : `; recorded, but not done or not confirmed: ${undone}`}`,
  )
  return lines.filter((line) => line !== '')
}

/** @param {Event | null} event */
const throughNode = (event) => (event?.['node'] === undefined ? '' : `, through ${event['node']}`)

/** @param {string[]} args */
function main(args) {
  const zips = []
  const keys = []
  const nodes = []
  let device
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '--key') keys.push(args[++i] ?? '')
    else if (arg === '--device') device = args[++i]
    else if (arg === '--node') nodes.push(args[++i] ?? '')
    else zips.push(arg)
  }
  const [zip, more] = zips
  if (zip === undefined || more !== undefined || zip.startsWith('-')) {
    console.error('node verify.mjs PACKAGE.zip --key KEYFILE [--device NAME] [--node NAME ...]')
    return 2
  }
  const vkeys = keys.flatMap((key) =>
    (/^\S+\+[0-9a-f]{8}\+\S+$/.test(key) ? key : readFileSync(key, 'utf8'))
      .split('\n')
      .filter((line) => line.trim() !== '' && line[0] !== '#'),
  )
  const { exit, lines } = verifyPackage(readFileSync(zip), vkeys, device, nodes)
  for (const line of lines) console.log(shownText(line).replaceAll(/[\n\t]/g, ' '))
  return exit
}

const started = process.argv[1]
if (started !== undefined && realpathSync(started) === fileURLToPath(import.meta.url))
  process.exitCode = main(process.argv.slice(2))
