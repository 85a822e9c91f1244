/** HELLO: the first frame each way, and what it may say. docs/protocol.md section 4. */
import { MuxError } from './errors.ts'
import type { Role, WireLimits } from './limits.ts'
import { Reader } from './octets.ts'
import type { Writer } from './octets.ts'
import { fromUtf8, utf8 } from './text.ts'

/** The one version spoken here; HELLO carries a range. */
export const VERSION = 1
export const MAX_CREDIT = 0x7fff_ffff
const KiB16 = 16_384
const roles: readonly Role[] = ['agent', 'client', 'gateway']

export interface Hello {
  readonly type: 'hello'
  readonly minVersion: number
  readonly maxVersion: number
  readonly role: Role
  readonly limits: WireLimits
  /** Bits without a meaning yet; sent 0, ignored when received. */
  readonly features: number
  readonly epoch: number
  readonly instance: string
  /** What a later version added behind; kept, not understood. */
  readonly rest: Uint8Array
}

/** The payload. */
export function writeHello(w: Writer, hello: Hello): void {
  w.u16(hello.minVersion)
  w.u16(hello.maxVersion)
  w.u8(roles.indexOf(hello.role) + 1)
  w.u32(hello.limits.maxStreams)
  w.u32(hello.limits.initialWindow)
  w.u32(hello.limits.maxFrame)
  w.u32(hello.limits.maxWindow)
  w.u32(hello.features)
  w.u64(BigInt(hello.epoch))
  w.short(hello.instance)
  w.bytes(hello.rest)
}

/** Reads the payload. Throws MuxError hello.*, for what is cut short too. */
export function readHello(payload: Uint8Array): Hello {
  try {
    return checkedHello(new Reader(payload))
  } catch (error) {
    if (error instanceof MuxError && !error.code.startsWith('hello.')) {
      throw new MuxError('hello.malformed', 'remote', error.detail, { cause: error })
    }
    throw error
  }
}

function checkedHello(r: Reader): Hello {
  const minVersion = r.u16()
  const maxVersion = r.u16()
  // The range comes first: what follows is only certain to be readable if it holds our version.
  if (minVersion > VERSION || maxVersion < VERSION) {
    throw new MuxError('hello.version', 'remote', `${minVersion} to ${maxVersion}`)
  }
  const number = r.u8()
  const role = roles[number - 1]
  if (role === undefined) throw new MuxError('hello.role', 'remote', `role ${number}`)
  const limits = {
    maxStreams: r.u32(),
    initialWindow: r.u32(),
    maxFrame: r.u32(),
    maxWindow: r.u32(),
  }
  const wrong = limitOutOfRange(limits)
  if (wrong !== undefined) throw new MuxError('hello.limits', 'remote', wrong)
  const features = r.u32()
  const epoch = r.u64()
  if (epoch > BigInt(Number.MAX_SAFE_INTEGER))
    throw new MuxError('hello.malformed', 'remote', 'epoch')
  const instance = fromUtf8(r.short())
  if (instance === '' || utf8(instance).length > 64) {
    throw new MuxError('hello.malformed', 'remote', 'instance')
  }
  const rest = r.rest()
  return {
    type: 'hello',
    minVersion,
    maxVersion,
    role,
    limits,
    features,
    epoch: Number(epoch),
    instance,
    rest,
  }
}

/** Which of the limits is outside what HELLO may say, with its value; undefined if none is. */
export function limitOutOfRange(limits: WireLimits): string | undefined {
  const ranges: readonly [keyof WireLimits, number, number][] = [
    ['maxStreams', 1, 1_048_576],
    ['maxFrame', KiB16, 0xff_ffff],
    ['maxWindow', KiB16, MAX_CREDIT],
    ['initialWindow', KiB16, limits.maxWindow],
  ]
  for (const [name, least, most] of ranges) {
    const value = limits[name]
    if (!Number.isInteger(value) || value < least || value > most) return `${name} ${value}`
  }
  return undefined
}
