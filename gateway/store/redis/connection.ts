/**
 * Connections to Redis that fail fast and never guess: a write is answered after it is on disk
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

/** The script has run, and gave `value`; what it wrote too few replicas have. */
export class ReplicasMissing extends StoreError {
  /** Rows of people may be in it: nothing for those who print every field of an error. */
  readonly #value: unknown
  constructor(message: string, value: unknown) {
    super('store.replicas', message)
    this.#value = value
  }
  get value(): unknown {
    return this.#value
  }
}

/** The server itself answered that it takes no writes (full, a replica, a failed save, its own replicas away): nothing was done. */
export class WriteRefused extends StoreError {}
const REFUSALS = /^(?:OOM|READONLY|MISCONF|NOREPLICAS) /

const digests = new Map<ScriptName, string>()
function digestOf(name: ScriptName): string {
  const known = digests.get(name)
  if (known !== undefined) return known
  const digest = createHash('sha1').update(scriptText(name)).digest('hex')
  digests.set(name, digest)
  return digest
}

/** One way to the server, and what the server behind it said of its settings. */
class Line {
  readonly redis: Redis
  readonly #where: string
  /** Forgotten with the connection: after a failover or a restart it may be another server, or have other settings. */
  #durable: Promise<void> | undefined
  /** Why it was closed (a password, a certificate) is said by its own event alone. */
  #why: Error | undefined

  constructor(redis: Redis, where: string) {
    this.redis = redis
    this.#where = where
    redis.on('close', () => (this.#durable = undefined))
    // Every failed command rejects by itself; without a listener a lost connection would be uncaught.
    redis.on('error', (error: Error) => (this.#why = error))
  }

  /** Throws StoreError as `RedisConnection.open`. */
  async open(): Promise<void> {
    await answered(
      this.redis.connect().catch((error: unknown) => Promise.reject(this.#why ?? (error as Error))),
    )
    await this.assertDurable()
  }

  /** Once for each connection, before its first command. Throws StoreError as `open`. */
  async assertDurable(): Promise<void> {
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
      told = await this.redis.call('CONFIG', 'GET', ...names)
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

  /** Runs a script. Throws StoreError. */
  async run(name: ScriptName, prefix: string, args: readonly string[]): Promise<unknown> {
    await this.assertDurable()
    return await answered(this.#evaluate(name, prefix, args))
  }

  async #evaluate(name: ScriptName, prefix: string, args: readonly string[]): Promise<unknown> {
    try {
      return await this.redis.evalsha(digestOf(name), 1, prefix, ...args)
    } catch (error) {
      // A restarted server has forgotten its scripts; this one did not run.
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error
      return await this.redis.eval(scriptText(name), 1, prefix, ...args)
    }
  }
}

/** What is not connected yet, and gives up on a silent server by itself. */
function dialled({ host, port, username, password, tls }: RedisPlace, patienceMs: number): Redis {
  return new Redis({
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
}

export class RedisConnection implements AsyncDisposable {
  readonly #reads: Line
  /** A way of their own, for WAIT holds up all that comes behind it. */
  readonly #writes: Line
  readonly #prefix: string
  readonly #replicas: number
  readonly #patienceMs: number
  /** The WAIT that is under way, and the one that comes behind it. */
  #waits: { now: Promise<unknown>; next: Promise<number> | undefined } = {
    now: Promise.resolve(),
    next: undefined,
  }
  #refused = false

  private constructor(
    [reads, writes]: readonly [Line, Line],
    prefix: string,
    replicas: number,
    patienceMs: number,
  ) {
    this.#reads = reads
    this.#writes = writes
    this.#prefix = prefix
    this.#replicas = replicas
    this.#patienceMs = patienceMs
  }

  /**
   * Connects, once to read and once to write, and checks that what is written there stays. `prefix` sets stores apart on
   * one server. Nobody waits for a command longer than twice `patienceMs`; what waits for replicas has as long again.
   * Throws StoreError `store.unavailable` (no answer), `store.volatile` (it may forget; the message
   * has the lines to change), `store.settings` (it does not tell).
   */
  static async open(
    place: RedisPlace,
    prefix: string,
    patienceMs = PATIENCE_MS,
  ): Promise<RedisConnection> {
    const where = `${place.host}:${place.port}`
    const line = () => new Line(dialled(place, patienceMs), where)
    const lines = [line(), line()] as const
    try {
      for (const one of lines) await one.open()
    } catch (error) {
      for (const { redis } of lines) redis.disconnect()
      throw error
    }
    return new RedisConnection(lines, `{${prefix}}:`, place.replicas ?? 0, patienceMs)
  }

  /** Runs a script that only reads. Throws StoreError. */
  async read(name: ScriptName, ...args: readonly string[]): Promise<unknown> {
    return await this.#reads.run(name, this.#prefix, args)
  }

  /**
   * Runs a script that may write; resolves when it is durable. Throws StoreError
   * `store.unavailable`, also when the write may have happened (a WriteRefused has not);
   * `store.replicas` (ReplicasMissing) when too few have it.
   */
  async write(name: ScriptName, ...args: readonly string[]): Promise<unknown> {
    const value = await this.#writes.run(name, this.#prefix, args).catch((error: unknown) => {
      this.#moved(error)
      throw error
    })
    this.#refused = false
    if (this.#replicas === 0) return value
    const have = await answered((this.#waits.next ??= this.#wait()))
    if (have < this.#replicas)
      throw new ReplicasMissing(
        `${have} of ${this.#replicas} replicas of Redis have the write`,
        value,
      )
    return value
  }

  /** One WAIT tells of every write before it: what is answered while one is under way shares the next. */
  async #wait(): Promise<number> {
    await this.#waits.now
    const asked = this.#writes.redis.wait(this.#replicas, this.#patienceMs)
    this.#waits = { now: asked.catch(() => undefined), next: undefined }
    return await asked
  }

  /** A server that became a replica keeps its connections: who dials anew finds the one that took its place. */
  #moved(error: unknown): void {
    if (!(error instanceof StoreError && error.message.includes('READONLY '))) return
    // Where nobody else is at its address, it can at least be read from then on.
    if (!this.#refused) this.#reads.redis.disconnect(true)
    this.#refused = true
    this.#writes.redis.disconnect(true)
  }

  /** Stream entries after `id`, at most `count`: each its id and its fields in a row. */
  async after(
    key: string,
    id: string,
    count: number,
  ): Promise<readonly (readonly [string, readonly string[]])[]> {
    await this.#reads.assertDurable()
    return await answered(
      this.#reads.redis.xrange(`${this.#prefix}${key}`, `(${id}`, '+', 'COUNT', count),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { redis } of [this.#reads, this.#writes]) redis.disconnect()
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
    if (cause instanceof ReplyError && REFUSALS.test(said))
      throw new WriteRefused('store.unavailable', `Redis: ${said}`)
    const code = said.startsWith('ERR ') ? 'store.conflict' : 'store.unavailable'
    throw new StoreError(code, `Redis: ${said.replace(/^ERR /, '')}`)
  }
}
