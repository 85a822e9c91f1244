/**
 * A program to start, as agent.json declares it: all of its words, whom it runs as, where, with which
 * environment and limits. Nothing of it comes from the gateway or from the person. Root is refused: what
 * runs as root can leave things behind.
 */
import { readFileSync } from 'node:fs'
import type { At } from '../at.ts'

/** Bounds of one process of the program (setrlimit(2)), `processes` of all its user's together. */
export interface Limits {
  readonly processes: number
  readonly files: number
  readonly memoryMb: number | null
  readonly fileMb: number | null
  readonly cpuS: number | null
}

export interface Spawned {
  readonly kind: 'spawn'
  /** The first is the absolute path of the executable. */
  readonly argv: readonly [string, ...string[]]
  /** A name of /etc/passwd, or a number. */
  readonly user: string | number
  readonly cwd: string
  readonly env: ReadonlyMap<string, string>
  /** Whether a person who has a terminal gets one there. */
  readonly terminal: boolean
  readonly limits: Limits
  /** Not of the declaration: the agent's data directory, which a program of its own user must not see. */
  readonly dataDir?: string
}

const KEYS = ['argv', 'user', 'cwd', 'env', 'terminal', 'limits'] as const
const LIMITS = {
  processes: { most: 65_536, fallback: 256 },
  files: { most: 1_048_576, fallback: 1024 },
  memory_mb: { most: 1_048_576, fallback: null },
  file_mb: { most: 1_048_576, fallback: null },
  cpu_s: { most: 31_536_000, fallback: null },
} as const
const MAX_WORDS = 64
const MAX_WORD_BYTES = 4096
const MAX_VARIABLES = 64
const MAX_UID = 4_294_967_294

/** Reads one. Throws AgentError `config.invalid` with the place of the mistake. */
export function declarationOf(at: At): Spawned {
  const value = at.record()
  for (const key of Object.keys(value))
    if (!KEYS.some((known) => known === key))
      throw at.inside(key, value[key]).fail(`unknown; the keys are ${KEYS.join(', ')}`)
  const inner = (key: (typeof KEYS)[number]) => at.inside(key, value[key])
  return {
    kind: 'spawn',
    argv: argvOf(inner('argv')),
    user: userOf(inner('user')),
    cwd: value['cwd'] === undefined ? '/' : pathOf(inner('cwd')),
    env: envOf(inner('env')),
    terminal: terminalOf(inner('terminal')),
    limits: limitsOf(inner('limits')),
  }
}

function wordOf(at: At): string {
  const { value } = at
  if (typeof value !== 'string' || value.includes('\0') || value.length > MAX_WORD_BYTES)
    throw at.fail(`text of at most ${MAX_WORD_BYTES} characters, none of them NUL, is expected`)
  return value
}

function pathOf(at: At): string {
  const path = wordOf(at)
  if (!path.startsWith('/')) throw at.fail('an absolute path is expected')
  return path
}

function argvOf(at: At): Spawned['argv'] {
  const { value } = at
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_WORDS)
    throw at.fail(`a list of 1 to ${MAX_WORDS} words is expected, the executable first`)
  const words = value.map((word: unknown, index) => wordOf(at.inside(String(index), word)))
  return [pathOf(at.inside('0', words[0])), ...words.slice(1)]
}

function userOf(at: At): string | number {
  const { value } = at
  const known =
    typeof value === 'number'
      ? Number.isInteger(value) && value >= 0 && value <= MAX_UID
      : typeof value === 'string' && /^[a-z_][a-z0-9_.-]{0,31}\$?$/i.test(value)
  if (!known) throw at.fail('the name or the number of a user is expected')
  if (value === 0 || value === 'root')
    throw at.fail('a program that runs as root could leave things behind; name another user')
  return value as string | number
}

function envOf(at: At): ReadonlyMap<string, string> {
  if (at.value === undefined) return new Map()
  const entries = Object.entries(at.record())
  if (entries.length > MAX_VARIABLES) throw at.fail(`at most ${MAX_VARIABLES} are expected`)
  return new Map(
    entries.map(([name, value]) => {
      const inner = at.inside(name, value)
      if (!/^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(name))
        throw inner.fail('the name of a variable is letters, digits and _')
      return [name, wordOf(inner)]
    }),
  )
}

function terminalOf(at: At): boolean {
  if (at.value === undefined) return false
  if (typeof at.value !== 'boolean') throw at.fail('true or false is expected')
  return at.value
}

function limitsOf(at: At): Limits {
  const value = at.value === undefined ? {} : at.record()
  for (const key of Object.keys(value))
    if (!Object.hasOwn(LIMITS, key))
      throw at
        .inside(key, value[key])
        .fail(`unknown; the keys are ${Object.keys(LIMITS).join(', ')}`)
  const read = <F extends number | null>(key: keyof typeof LIMITS, fallback: F): number | F => {
    const limit = value[key]
    if (limit === undefined) return fallback
    const { most } = LIMITS[key]
    if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > most)
      throw at.inside(key, limit).fail(`a whole number from 1 to ${most} is expected`)
    return limit
  }
  return {
    processes: read('processes', LIMITS.processes.fallback),
    files: read('files', LIMITS.files.fallback),
    memoryMb: read('memory_mb', LIMITS.memory_mb.fallback),
    fileMb: read('file_mb', LIMITS.file_mb.fallback),
    cpuS: read('cpu_s', LIMITS.cpu_s.fallback),
  }
}

/** The value of the file that `declarationOf` reads. */
export function printDeclaration(declared: Spawned): object {
  const { kind: _kind, dataDir: _dataDir, env, limits, ...plain } = declared
  const { processes, files, memoryMb, fileMb, cpuS } = limits
  const told = { processes, files, memory_mb: memoryMb, file_mb: fileMb, cpu_s: cpuS }
  return {
    ...plain,
    env: Object.fromEntries(env),
    limits: Object.fromEntries(Object.entries(told).filter(([, most]) => most !== null)),
  }
}

export interface User {
  readonly uid: number
  readonly gid: number
  readonly name: string
  readonly home: string
}

/** Whom the declaration names, as /etc/passwd has it. Undefined: there is no such user, or it is root. */
export function findUser(user: string | number, passwd = '/etc/passwd'): User | undefined {
  let text = ''
  try {
    text = readFileSync(passwd, 'utf8')
  } catch {
    // Without the file a number still is a user.
  }
  for (const line of text.split('\n')) {
    const [name = '', , uid = '', gid = '', , home = ''] = line.split(':')
    if (!/^\d+$/.test(uid) || !/^\d+$/.test(gid)) continue
    if (name === user || Number(uid) === user)
      return Number(uid) === 0 ? undefined : { uid: Number(uid), gid: Number(gid), name, home }
  }
  if (typeof user !== 'number' || user === 0) return undefined
  return { uid: user, gid: user, name: String(user), home: '/' }
}
