/**
 * What a command is given: names, durations, numbers, and secrets, which come from a file, from
 * stdin or from a prompt, never from the command line, where every user of the machine reads them.
 */
import { readFileSync, statSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { CliError, usage } from './exit.ts'
import { note } from './print.ts'

/** A device or process id: the label of a host name (API schema `Name`). */
const NAME = /^[a-z0-9](?:(?:[a-z0-9]|-(?!-)){0,38}[a-z0-9])?$/
const DURATION = /^(?:(\d{1,3})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?$/
/** A file that holds one secret; more than this is the wrong file. */
const SECRET_BYTES_MAX = 4096

/** A name; throws usage. `what` says what it names. */
export function readName(text: string, what: string): string {
  if (NAME.test(text)) return text
  throw usage(
    `${JSON.stringify(text)} is not the name of a ${what}`,
    'names are 1 to 40 of a-z, 0-9 and single hyphens inside',
  )
}

export interface Place {
  readonly device: string
  readonly processes: readonly [string, ...string[]]
}

/** `DEVICE/PROCESS[,PROCESS…]`; throws usage. */
export function readPlace(text: string): Place {
  const [device = '', names = '', ...more] = text.split('/')
  const [first, ...rest] = names.split(',').map((name) => name.trim())
  if (more.length > 0 || first === undefined || first === '')
    throw usage(
      `${JSON.stringify(text)} does not name a process`,
      'write it as DEVICE/PROCESS, as in press-07/plc',
    )
  return {
    device: readName(device, 'device'),
    processes: [readName(first, 'process'), ...rest.map((name) => readName(name, 'process'))],
  }
}

/** `DEVICE/PROCESS`, exactly one; throws usage. */
export function readProcess(text: string): { readonly device: string; readonly process: string } {
  const { device, processes } = readPlace(text)
  if (processes.length > 1)
    throw usage('one process at a time here', `name ${device}/${processes[0]} alone`)
  return { device, process: processes[0] }
}

/** Epoch seconds of so long ago, as in `7d`. Throws usage. */
export function readSince(text: string): number {
  return Math.floor(Date.now() / 1000) - readDuration(text)
}

/** `90s`, `2m`, `1h30m`, `1d` as whole seconds, at least one; throws usage. */
export function readDuration(text: string): number {
  const match = text === '' ? null : DURATION.exec(text)
  const [days = 0, hours = 0, minutes = 0, seconds = 0] = (match ?? [])
    .slice(1)
    .map((part) => Number(part ?? 0))
  const total = days * 86_400 + hours * 3600 + minutes * 60 + seconds
  if (match === null || total < 1)
    throw usage(`${JSON.stringify(text)} is not a duration`, 'write it as 90s, 2m, 1h30m or 1d')
  return total
}

/** A whole number within bounds; throws usage. */
export function readInteger(text: string, what: string, least: number, most: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (value >= least && value <= most) return value
  throw usage(`${what} ${JSON.stringify(text)} is not a whole number from ${least} to ${most}`)
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }

/** `500K`, `20M`, `1G` or plain octets as a number, from 1 to 64 GiB; throws usage. */
export function readSize(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,11})([KMG]?)$/.exec(text) ?? []
  const bytes = digits === '' ? Number.NaN : Number(digits) * (UNITS[unit] ?? Number.NaN)
  if (bytes >= 1 && bytes <= 64 * 1024 ** 3) return bytes
  throw usage(
    `${JSON.stringify(text)} is not a number of bytes up to 64G`,
    'write it as 500K, 20M or 1G, of 1024 each',
  )
}

export interface Addresses {
  readonly unit: number
  readonly from: number
  readonly to: number
}

/** `UNIT:FROM-TO` or `UNIT:ADDRESS`, several with commas, as Modbus counts them on the wire: from 0. Throws usage. */
export function readAddresses(text: string): Addresses[] {
  return text.split(',').map((part) => {
    const [, unit, from, to = from] = /^(\d{1,3}):(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim()) ?? []
    if (unit === undefined || from === undefined || to === undefined)
      throw usage(
        `${JSON.stringify(part)} names no addresses`,
        'write them as UNIT:FROM-TO, as in 1:0-9,1:40',
      )
    return { unit: Number(unit), from: Number(from), to: Number(to) }
  })
}

const WEEK = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']

/** `Tue 02:00-04:00`, `Mon,Thu 22:00-02:00` (to the next day), `daily 06:00-07:00`. Throws usage. */
export function readEvery(text: string): { days: number[]; from_min: number; to_min: number } {
  const no = usage(
    `${JSON.stringify(text)} is no window of a week`,
    'write it as "Tue 02:00-04:00", "Mon,Thu 22:00-02:00" or "daily 06:00-07:00"',
  )
  const [, names = '', ...parts] =
    /^([a-z,]+) +(\d\d):([0-5]\d) *- *(\d\d):([0-5]\d)$/.exec(text.trim().toLowerCase()) ?? []
  const [fromHour = NaN, from = NaN, toHour = NaN, to = NaN] = parts.map(Number)
  const named = names === 'daily' ? WEEK : names.split(',')
  const days = WEEK.flatMap((day, at) => (named.some((name) => name === day) ? [at] : []))
  if (
    days.length !== named.length ||
    !(fromHour < 24) ||
    !(toHour < 24 || (toHour === 24 && to === 0))
  )
    throw no
  const from_min = fromHour * 60 + from
  const until = toHour * 60 + to
  const to_min = until > from_min ? until : until + 1440
  if (to_min - from_min >= 1440) throw no
  return { days, from_min, to_min }
}

export interface ListenAddress {
  readonly host: string
  readonly port: number
  /** Where it was said: the process has to be reached by that. */
  readonly transport?: 'tcp' | 'udp'
}

/**
 * `127.0.0.1:1502`, `[::1]:1502` or `1502` (loopback), `tcp:` or `udp:` before it. Port 0 takes a free
 * one. Throws usage.
 */
export function readListen(text: string): ListenAddress {
  const [, transport, rest = ''] = /^(tcp:|udp:)?(.*)$/s.exec(text) ?? []
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):)?(\d{1,5})$/.exec(rest)
  if (match === null)
    throw usage(
      `${JSON.stringify(text)} is not an address to listen on`,
      'write it as 127.0.0.1:1502',
    )
  const host = (match[1] ?? '127.0.0.1').replace(/^\[|\]$/g, '')
  const port = Number(match[2])
  if (port > 65_535)
    throw usage(
      `${JSON.stringify(text)} names no port`,
      'write it as 127.0.0.1:1502: a port is from 1 to 65535, and 0 takes a free one',
    )
  return transport === undefined
    ? { host, port }
    : { host, port, transport: transport === 'udp:' ? 'udp' : 'tcp' }
}

/** A small text file; throws usage naming it. */
export function readText(path: string, what: string): string {
  return readBytes(path, what).toString('utf8')
}

/**
 * A private key's text. As ssh does: one that is ours has to be for us alone; on another's, whose business
 * its mode is, nothing is asked. Throws CliError `key.exposed`, usage.
 */
export function readPrivate(path: string, what: string): string {
  const there = statSync(path, { throwIfNoEntry: false })
  if (there !== undefined && there.uid === process.getuid?.() && (there.mode & 0o077) !== 0)
    throw new CliError(`the ${what} file ${path} can be read by others, so it is not used`, {
      code: 'key.exposed',
      exit: 'usage',
      why: `its mode is ${(there.mode & 0o777).toString(8).padStart(4, '0')}`,
      next: `make it yours alone: chmod 600 ${path}; if others may have read it, make a new key`,
    })
  return readText(path, what)
}

/** A small file as it is; throws usage naming it. */
export function readBytes(path: string, what: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw usage(`the ${what} file ${path} cannot be read`, 'check the path and its permissions', {
      cause,
    })
  }
}

/**
 * A secret from `file` (`-` is stdin), else asked for on the terminal without echo. One trailing line end is not
 * part of it. Throws usage where it is empty, too long, or there is neither file nor terminal.
 */
export async function readSecret(file: string | undefined, what: string): Promise<string> {
  const option = `--${what.replaceAll(' ', '-')}-file`
  if (file === undefined && !process.stdin.isTTY)
    throw usage(
      `a ${what} is needed and there is no terminal to ask on`,
      `give it with ${option} FILE`,
    )
  const text =
    file === undefined
      ? await askHidden(`${what}: `)
      : readText(file === '-' ? '/dev/stdin' : file, what)
  const secret = text.replace(/\r?\n$/, '')
  if (secret === '' || Buffer.byteLength(secret) > SECRET_BYTES_MAX)
    throw usage(
      `the ${what} is empty or too long`,
      `put it alone into a file and give it with ${option}`,
    )
  return secret
}

/**
 * As `readSecret`, but on a terminal it is asked for twice: nobody could repeat a slip of the fingers. One of
 * less than `least` characters is refused at once, before the second time.
 */
export async function readNewSecret(
  file: string | undefined,
  what: string,
  least: number,
): Promise<string> {
  if (file !== undefined || !process.stdin.isTTY) return await readSecret(file, what)
  const secret = await askHidden(`${what}, at least ${least} characters: `)
  if (secret.length < least || Buffer.byteLength(secret) > SECRET_BYTES_MAX)
    throw usage(
      `the ${what} is too short or too long`,
      `nothing was done; choose one of ${least} characters or more`,
    )
  if ((await askHidden(`${what}, again: `)) !== secret)
    throw usage(`the two ${what}s differ`, 'nothing was done; run the command again')
  return secret
}

/** Asks on the terminal; typed characters are not shown. */
async function askHidden(question: string): Promise<string> {
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const terminal = createInterface({ input: process.stdin, output: silent, terminal: true })
  process.stderr.write(question)
  try {
    return await terminal.question('')
  } finally {
    terminal.close()
    process.stderr.write('\n')
  }
}

/** Whether a person says yes. Where nobody can be asked, `--yes` must have been given: throws usage. */
export async function confirm(question: string, yes: boolean | undefined): Promise<boolean> {
  if (yes === true) return true
  if (!process.stdin.isTTY)
    throw usage('this wants a yes, and there is no terminal to ask on', 'add --yes')
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const answer = await terminal.question(`${question} [y/N] `)
    return /^y(es)?$/i.test(answer.trim())
  } finally {
    terminal.close()
    note('')
  }
}
