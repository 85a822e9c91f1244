/**
 * One connection to Redis that fails fast and never guesses: a write is answered after it is on disk
 * (and on as many replicas as were asked for), or the caller hears that nobody knows.
 */
import { createHash } from 'node:crypto'
import { Redis, ReplyError } from 'ioredis'
import { StoreError } from '../sqlite/thread.ts'
import { scriptText, type ScriptName } from './texts.ts'

export interface RedisPlace {
  readonly host: string
  readonly port: number
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** PEM; with them the connection is mutual TLS. */
  readonly tls?: {
    readonly ca: string
    readonly cert?: string | undefined
    readonly key?: string | undefined
    readonly servername?: string | undefined
  }
  /** Replicas that must have a write before it counts; 0 where there are none. */
  readonly replicas?: number | undefined
}

/** What a durable Redis says to `CONFIG GET`, and the line of redis.conf that makes it so. */
const REQUIRED = [
  ['appendonly', 'yes'],
  ['appendfsync', 'always'],
  ['no-appendfsync-on-rewrite', 'no'],
  ['maxmemory-policy', 'noeviction'],
] as const
const PATIENCE_MS = 2_000

const digests = new Map<ScriptName, string>()
function digestOf(name: ScriptName): string {
  const known = digests.get(name)
  if (known !== undefined) return known
  const digest = createHash('sha1').update(scriptText(name)).digest('hex')
  digests.set(name, digest)
  return digest
}

export class RedisConnection implements AsyncDisposable {
  readonly #redis: Redis
  readonly #prefix: string
  readonly #replicas: number
  readonly #where: string
  /** What this connection's server said of its settings; forgotten with the connection. */
  #durable: Promise<void> | undefined

  private constructor(redis: Redis, prefix: string, { host, port, replicas = 0 }: RedisPlace) {
    this.#redis = redis
    this.#prefix = prefix
    this.#replicas = replicas
    this.#where = `${host}:${port}`
    // After a failover or a restart it may be another server, or the same with other settings.
    redis.on('close', () => (this.#durable = undefined))
  }

  /**
   * Connects and checks that what is written there stays. `prefix` sets stores apart on one server. Nobody
   * waits for a command longer than twice `patienceMs`; what waits for replicas has as long again.
   * Throws StoreError `store.unavailable` (no answer), `store.volatile` (it may forget; the message
   * has the lines to change), `store.settings` (it does not tell).
   */
  static async open(
    place: RedisPlace,
    prefix: string,
    patienceMs = PATIENCE_MS,
  ): Promise<RedisConnection> {
    const { host, port, username, password, tls } = place
    const redis = new Redis({
      host,
      port,
      lazyConnect: true,
      enableOfflineQueue: false,
      // An unanswered command may have run: it is the caller who knows how to ask again.
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      connectTimeout: patienceMs,
      commandTimeout: patienceMs * 2,
      // A server that went away without a word (a cut cable, a failover of its address) never closes: the
      // connection is given up with its command, and the next one finds whoever answers there now.
      socketTimeout: patienceMs * 2,
      retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 6), patienceMs),
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password }),
      ...(tls === undefined ? {} : { tls: { ...tls, minVersion: 'TLSv1.2' as const } }),
    })
    // Every failed command rejects by itself; without a listener a lost connection would be uncaught.
    let why: Error | undefined
    redis.on('error', (error: Error) => (why = error))
    const connection = new RedisConnection(redis, `{${prefix}}:`, place)
    try {
      // Why it was closed (a password, a certificate) is said by its own event alone.
      await answered(
        redis.connect().catch((error: unknown) => Promise.reject(why ?? (error as Error))),
      )
      await connection.#assertDurable()
    } catch (error) {
      redis.disconnect()
      throw error
    }
    return connection
  }

  /** Once for each connection, before its first command. Throws StoreError as `open`. */
  async #assertDurable(): Promise<void> {
    const asked = (this.#durable ??= this.#requireDurability(this.#where))
    try {
      await asked
    } catch (error) {
      if (this.#durable === asked) this.#durable = undefined
      throw error
    }
  }

  async #requireDurability(where: string): Promise<void> {
    const names = REQUIRED.map(([name]) => name)
    let told: unknown
    try {
      told = await this.#redis.call('CONFIG', 'GET', ...names)
    } catch (cause) {
      // Only what the server itself answered is about its settings.
      if (!(cause instanceof ReplyError)) return await answered(Promise.reject(cause as Error))
      throw new StoreError(
        'store.settings',
        `Redis at ${where} does not show its settings (${messageOf(cause)}): let this user run CONFIG GET`,
      )
    }
    const list = Array.isArray(told) ? told.map(String) : []
    const settings = new Map(names.map((name) => [name, list[list.indexOf(name) + 1] ?? 'unknown']))
    const wrong = REQUIRED.filter(([name, value]) => settings.get(name) !== value)
    if (wrong.length === 0) return
    const lines = wrong.map(
      ([name, value]) => `"${name} ${settings.get(name) ?? 'unknown'}" must be "${name} ${value}"`,
    )
    throw new StoreError(
      'store.volatile',
      `Redis at ${where} may forget what it confirmed; in redis.conf ${lines.join(', ')}`,
    )
  }

  /** Runs a script that only reads. Throws StoreError. */
  async read(name: ScriptName, ...args: readonly string[]): Promise<unknown> {
    await this.#assertDurable()
    return await answered(this.#run(name, args))
  }

  /**
   * Runs a script that may write; resolves when it is durable. Throws StoreError
   * `store.unavailable`, also when the write may have happened; `store.replicas` when too few have it.
   */
  async write(name: ScriptName, ...args: readonly string[]): Promise<unknown> {
    const value = await this.read(name, ...args)
    if (this.#replicas === 0) return value
    const have = await answered(this.#redis.wait(this.#replicas, PATIENCE_MS))
    if (have < this.#replicas)
      throw new StoreError(
        'store.replicas',
        `${have} of ${this.#replicas} replicas of Redis have the write`,
      )
    return value
  }

  /** Stream entries after `id`, at most `count`: each its id and its fields in a row. */
  async after(
    key: string,
    id: string,
    count: number,
  ): Promise<readonly (readonly [string, readonly string[]])[]> {
    await this.#assertDurable()
    return await answered(
      this.#redis.xrange(`${this.#prefix}${key}`, `(${id}`, '+', 'COUNT', count),
    )
  }

  async #run(name: ScriptName, args: readonly string[]): Promise<unknown> {
    try {
      return await this.#redis.evalsha(digestOf(name), 1, this.#prefix, ...args)
    } catch (error) {
      // A restarted server has forgotten its scripts; this one did not run.
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error
      return await this.#redis.eval(scriptText(name), 1, this.#prefix, ...args)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#redis.disconnect()
    await Promise.resolve()
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

async function answered<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (cause) {
    const said = messageOf(cause)
    if (said.startsWith("Stream isn't writeable"))
      throw new StoreError('store.unavailable', 'Redis: there is no connection to it')
    const code = said.startsWith('ERR ') ? 'store.conflict' : 'store.unavailable'
    throw new StoreError(code, `Redis: ${said.replace(/^ERR /, '')}`)
  }
}
