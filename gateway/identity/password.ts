/**
 * Passwords: argon2id (RFC 9106) as PHC strings. 46 MiB, one pass, one lane is the first choice of the
 * OWASP password storage cheat sheet; about 0.15 s of one core here. At most two run at once, because
 * each takes a thread of the pool and 46 MiB: a flood of logins waits, then is refused, and starves nobody.
 */
import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { IdentityError } from './errors.ts'

export interface Argon2Cost {
  /** KiB. */
  readonly memory: number
  readonly passes: number
  readonly parallelism: number
}

export const COST: Argon2Cost = { memory: 47_104, passes: 1, parallelism: 1 }
/** What a stored hash may ask for: more would let a tampered store stop the gateway. */
const CEILING: Argon2Cost = { memory: 262_144, passes: 10, parallelism: 8 }
const SALT_BYTES = 16
const TAG_BYTES = 32
const CONCURRENT = 2
const WAITING = 32

const derive = promisify(argon2)

export interface Passwords {
  /** The PHC string of a password, with a fresh salt. Error: busy. */
  hash(password: string): Promise<string>
  /**
   * Whether the password is the stored one. Null or a malformed string costs the same time and is false,
   * so that the answer does not tell whether an account exists. Error: busy.
   */
  matches(password: string, stored: string | null): Promise<boolean>
  /** Whether a stored hash was made with other parameters than today's. */
  isOutdated(stored: string): boolean
}

interface Phc {
  readonly cost: Argon2Cost
  readonly salt: Buffer
  readonly tag: Buffer
}

const PHC =
  /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{22,86})\$([A-Za-z0-9+/]{43,86})$/

function parsePhc(stored: string): Phc | undefined {
  const [, memory, passes, parallelism, salt, tag] = PHC.exec(stored) ?? []
  if (salt === undefined || tag === undefined) return undefined
  const cost = { memory: Number(memory), passes: Number(passes), parallelism: Number(parallelism) }
  if (cost.memory > CEILING.memory || cost.passes > CEILING.passes) return undefined
  if (cost.parallelism > CEILING.parallelism || cost.memory < 8 * cost.parallelism) return undefined
  if (cost.passes < 1 || cost.parallelism < 1) return undefined
  return { cost, salt: Buffer.from(salt, 'base64'), tag: Buffer.from(tag, 'base64') }
}

function formatPhc({ cost, salt, tag }: Phc): string {
  const base64 = (bytes: Buffer): string => bytes.toString('base64').replace(/=+$/, '')
  const { memory, passes, parallelism } = cost
  return `$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$${base64(salt)}$${base64(tag)}`
}

/** RFC 8265 in short: composed and decomposed letters of one password are the same password. */
function bytesOf(password: string): Buffer {
  return Buffer.from(password.normalize('NFKC').toWellFormed())
}

export function createPasswords(cost: Argon2Cost = COST): Passwords {
  let running = 0
  const waiting: (() => void)[] = []
  const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
    if (running >= CONCURRENT) {
      if (waiting.length >= WAITING) throw new IdentityError('busy')
      await new Promise<void>((resolve) => waiting.push(resolve))
    } else running++
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running--
      else next()
    }
  }
  const tagOf = async (password: string, phc: Omit<Phc, 'tag'>, length: number): Promise<Buffer> =>
    inTurn(async () =>
      derive('argon2id', {
        message: bytesOf(password),
        nonce: phc.salt,
        tagLength: length,
        ...phc.cost,
      }),
    )
  const decoy: Phc = { cost, salt: randomBytes(SALT_BYTES), tag: randomBytes(TAG_BYTES) }
  return {
    async hash(password) {
      const salt = randomBytes(SALT_BYTES)
      return formatPhc({ cost, salt, tag: await tagOf(password, { cost, salt }, TAG_BYTES) })
    },
    async matches(password, stored) {
      const known = stored === null ? undefined : parsePhc(stored)
      const phc = known ?? decoy
      const tag = await tagOf(password, phc, phc.tag.length)
      return timingSafeEqual(tag, phc.tag) && known !== undefined
    },
    isOutdated(stored) {
      const was = parsePhc(stored)?.cost
      if (was === undefined) return true
      return (
        was.memory !== cost.memory ||
        was.passes !== cost.passes ||
        was.parallelism !== cost.parallelism
      )
    },
  }
}
