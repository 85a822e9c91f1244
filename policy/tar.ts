/**
 * Plain ustar, read strictly and written identically every time: regular files only, sorted, mode
 * 0644, owner and times zero, names with one leading slash as OPA writes them (POSIX.1-1988 10.1.1).
 */
import { PolicyError } from './errors.ts'

const BLOCK = 512
const MAX_FILES = 512
const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })

function field(header: Uint8Array, from: number, length: number): string {
  const raw = header.subarray(from, from + length)
  const end = raw.indexOf(0)
  try {
    return decoder.decode(end < 0 ? raw : raw.subarray(0, end))
  } catch (error) {
    throw new PolicyError('bundle.tar', 'a header that is not text', { cause: error })
  }
}

function octal(header: Uint8Array, from: number, length: number): number {
  const digits = field(header, from, length).trim()
  if (!/^[0-7]{1,11}$/.test(digits))
    throw new PolicyError('bundle.tar', 'a number that is not octal')
  return Number.parseInt(digits, 8)
}

function checksum(header: Uint8Array): number {
  let sum = 0
  for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 0x20 : (header[at] ?? 0)
  return sum
}

/** One name, its single leading slash gone; anything that could land elsewhere is refused. */
function fileName(header: Uint8Array): string {
  const prefix = field(header, 345, 155)
  const whole = prefix === '' ? field(header, 0, 100) : `${prefix}/${field(header, 0, 100)}`
  const name = whole.startsWith('/') ? whole.slice(1) : whole
  const clean = /^[A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*$/.test(name)
  if (!clean || name.split('/').some((part) => part === '.' || part === '..'))
    throw new PolicyError('bundle.name', JSON.stringify(whole))
  return name
}

/**
 * Reads an archive.
 * Takes: the whole archive. Gives: name -> content (views into it).
 * Errors: bundle.tar (damage, links, directories, extensions), bundle.name, bundle.duplicate.
 */
export function readTar(archive: Uint8Array): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>()
  let at = 0
  while (at + BLOCK <= archive.length) {
    const header = archive.subarray(at, at + BLOCK)
    if (header.every((byte) => byte === 0)) break
    if (octal(header, 148, 8) !== checksum(header))
      throw new PolicyError('bundle.tar', 'a header with a wrong checksum')
    const type = String.fromCharCode(header[156] ?? 0)
    if (type !== '0' && type !== '\0')
      throw new PolicyError('bundle.tar', 'an entry that is not a regular file')
    const name = fileName(header)
    const size = octal(header, 124, 12)
    const from = at + BLOCK
    if (from + size > archive.length) throw new PolicyError('bundle.tar', 'cut short')
    if (files.has(name)) throw new PolicyError('bundle.duplicate', name)
    if (files.size >= MAX_FILES) throw new PolicyError('bundle.tar', `more than ${MAX_FILES} files`)
    files.set(name, archive.subarray(from, from + size))
    at = from + Math.ceil(size / BLOCK) * BLOCK
  }
  const rest = archive.subarray(at)
  if (rest.length < 2 * BLOCK || !rest.every((byte) => byte === 0))
    throw new PolicyError('bundle.tar', 'no proper end')
  return files
}

function writeHeader(name: string, size: number): Uint8Array {
  const header = new Uint8Array(BLOCK)
  const put = (from: number, text: string): void => header.set(encoder.encode(text), from)
  const path = `/${name}`
  if (encoder.encode(path).length > 100)
    throw new PolicyError('bundle.name', 'longer than 100 bytes')
  put(0, path)
  put(100, '0000644\0')
  put(108, '0000000\0')
  put(116, '0000000\0')
  put(124, `${size.toString(8).padStart(11, '0')}\0`)
  put(136, '00000000000\0')
  put(156, '0')
  put(257, 'ustar\x0000')
  put(148, `${checksum(header).toString(8).padStart(6, '0')}\0 `)
  return header
}

/** Writes an archive: the same files always give the same bytes. Errors: bundle.name. */
export function writeTar(files: ReadonlyMap<string, Uint8Array>): Uint8Array<ArrayBuffer> {
  const sorted = [...files].toSorted(([a], [b]) => (a < b ? -1 : 1))
  const padded = (size: number): number => Math.ceil(size / BLOCK) * BLOCK
  const total = sorted.reduce((sum, [, bytes]) => sum + BLOCK + padded(bytes.length), 2 * BLOCK)
  const archive = new Uint8Array(total)
  let at = 0
  for (const [name, bytes] of sorted) {
    archive.set(writeHeader(name, bytes.length), at)
    archive.set(bytes, at + BLOCK)
    at += BLOCK + padded(bytes.length)
  }
  return archive
}
