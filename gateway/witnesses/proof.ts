/** Who a witness is: the keys that the configuration names, and a request that one of them signed. */
import { readFileSync } from 'node:fs'
import { errors, jwtVerify } from 'jose'
import { parseWitnessKey, type Verifier } from '#audit'
import { ConfigError } from '../config.ts'
import { Refusal } from '../problem.ts'

/** A request of a witness is good for this long, by either clock. */
const PROOF_SECONDS = 60

/** What of a request its proof is over. */
export interface Proven {
  readonly authorization: string | undefined
  readonly method: string
  /** Path and query as sent. */
  readonly path: string
}

/** A witness, and the name of the log that it follows. */
export interface Follower {
  readonly name: string
  readonly follows: string
}

/**
 * Who signed a request (a JWT by an Ed25519 key of one of `keys`, over method, path, time and the log's origin), and the
 * log it is meant for; undefined where it claims to be no witness's. `now` is epoch milliseconds. Throws Refusal
 * `witness.refused`.
 */
export async function followerOf(
  keys: readonly Verifier[],
  { authorization, method, path }: Proven,
  now: number,
): Promise<Follower | undefined> {
  const [scheme, token] = authorization?.split(' ', 2) ?? []
  if (scheme !== 'Witness' || token === undefined) return undefined
  try {
    const { payload, protectedHeader } = await jwtVerify(token, ({ kid }) => keyOf(keys, kid).key, {
      algorithms: ['EdDSA'],
      typ: 'witness+jwt',
      currentDate: new Date(now),
      maxTokenAge: PROOF_SECONDS,
      clockTolerance: PROOF_SECONDS,
    })
    if (payload['htm'] !== method || payload['htu'] !== path) throw new Error('another request')
    if (typeof payload.aud !== 'string') throw new Error('it names no log')
    return { name: keyOf(keys, protectedHeader.kid).name, follows: payload.aud }
  } catch (cause) {
    const why = cause instanceof errors.JOSEError ? cause.code : 'it is of another request or key'
    throw new Refusal('witness.refused', `the request is not a known witness's: ${why}`, {
      cause,
      nextStep:
        'name the mirror’s keys under `witnesses` of the gateway’s configuration, and see that both clocks agree',
    })
  }
}

function keyOf(keys: readonly Verifier[], kid: string | undefined): Verifier {
  const key = keys.find(({ id, type }) => id === kid && type === 4)
  if (key === undefined) throw new Error(`no witness has the key ${kid}`)
  return key
}

/** The vkeys of one witness, a line each. Throws ConfigError for a file that holds no such thing. */
export function readKeys(path: string): string[] {
  try {
    const vkeys = readFileSync(path, 'utf8')
      .split('\n')
      .map((row) => row.trim())
      .filter((row) => row !== '' && !row.startsWith('#'))
    const [first, ...rest] = vkeys.map(parseWitnessKey)
    if (first === undefined) throw new Error('it holds no key')
    if (rest.some(({ name }) => name !== first.name)) throw new Error('one file is one witness')
    if (![first, ...rest].some(({ type }) => type === 4)) throw new Error('it holds no Ed25519 key')
    return vkeys
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new ConfigError('config.value', 'witnesses', `${path}: ${why}`, { cause })
  }
}
