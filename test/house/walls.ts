/**
 * Who may import whom, and what a room must not touch. The table is the one of docs/architecture.md
 * and is read top to bottom: a file lives in the first room whose folder holds it.
 */
import { posix } from 'node:path'
import { badExports, imports, isMark, isWord, tokens, type Import, type Token } from './imports.ts'

export interface Room {
  readonly folder: string
  /**
   * Specifiers it may import: a door (`#mux`), a package, `node:*`, `npm:*` (any runtime
   * dependency), `dev:*` (development ones too), or a folder reached by a relative path.
   */
  readonly may: readonly string[]
  /** No clock, no timer, no randomness of its own. */
  readonly pure?: true
  /** Reads the environment and the command line. */
  readonly env?: true
}

const DOORS = [
  '#mux',
  '#ot',
  '#approval',
  '#update',
  '#boot',
  '#tunnel',
  '#agent',
  '#ca',
  '#est',
  '#policy',
  '#audit',
  '#heads',
  '#api',
  '#gateway',
]
const INSIDES = [
  'agent-tunnel',
  'ca',
  'policy',
  'audit',
  'gateway',
  'cli',
  'deploy',
  'bench',
  'test',
]

export const rooms: readonly Room[] = [
  { folder: 'agent-tunnel/mux', may: [], pure: true },
  { folder: 'agent-tunnel/ot', may: [], pure: true },
  { folder: 'agent-tunnel/approval', may: ['node:crypto'], pure: true },
  { folder: 'agent-tunnel/update', may: ['node:crypto'], pure: true },
  { folder: 'agent-tunnel/boot', may: ['#update', 'node:*'] },
  { folder: 'agent-tunnel/transport', may: ['#mux', 'node:*', 'ws'] },
  {
    folder: 'agent-tunnel/agent',
    may: ['#mux', '#ot', '#approval', '#update', '#boot', '#tunnel', '#est', 'node:*', 'ws'],
  },
  { folder: 'ca/der', may: [], pure: true },
  { folder: 'ca/client', may: ['ca/der', 'node:crypto'] },
  {
    folder: 'ca',
    may: ['ca/der', 'node:crypto', '@peculiar/x509', 'reflect-metadata', 'pkijs', 'asn1js'],
    pure: true,
  },
  { folder: 'policy/toolchain', may: ['policy', '@open-policy-agent/opa-wasm', 'node:*'] },
  { folder: 'policy', may: ['@open-policy-agent/opa-wasm', 'node:crypto'], pure: true },
  { folder: 'audit/heads', may: ['audit'] },
  { folder: 'audit/format', may: ['audit', 'node:*'], pure: true },
  { folder: 'audit/recording', may: ['audit', 'audit/format', 'node:*'], pure: true },
  { folder: 'audit', may: ['audit/format', 'audit/recording', 'node:*'] },
  { folder: 'gateway/api', may: ['typebox'] },
  { folder: 'gateway', may: [...DOORS.filter((door) => door !== '#gateway'), 'npm:*', 'node:*'] },
  { folder: 'cli', may: [...DOORS, '#policy-toolchain', 'npm:*', 'node:*'], env: true },
  { folder: 'deploy', may: ['cli', 'dev:*', 'node:*'], env: true },
  {
    folder: 'bench',
    may: [...DOORS, '#policy-toolchain', ...INSIDES, 'dev:*', 'node:*'],
    env: true,
  },
  {
    folder: 'test',
    may: [...DOORS, '#policy-toolchain', ...INSIDES, 'dev:*', 'node:*'],
    env: true,
  },
]

/** Single files at the root of the project. */
const ROOT_FILES = ['vitest.config.ts', 'vitest.systemd.config.ts']
/** The files of a room without `env` that read the environment: settings, and where a compiler may lie. */
const ENV_FILES = ['gateway/config.ts', 'policy/toolchain/opa.ts']
/** Default exports that a tool demands. */
const REPORTERS = ['test/support/stuck.ts', 'test/support/tally.ts']
const DEFAULT_FILES = [...ROOT_FILES, ...REPORTERS, 'test/support/knip-count.mjs']

/** The names a package.json gives: what may be imported, and where the doors are. */
export interface House {
  readonly doors: Readonly<Record<string, string>>
  readonly runtime: readonly string[]
  readonly development: readonly string[]
}

function roomOf(path: string): Room | undefined {
  return rooms.find(({ folder }) => path.startsWith(`${folder}/`))
}

/** Everything one source does that its room may not; each line names the place and the rule. */
export function complaints(path: string, source: string, house: House): string[] {
  if (ROOT_FILES.includes(path)) return []
  const room = roomOf(path)
  if (room === undefined) return [`${path}: no room is listed for it in test/house/walls.ts`]
  const all = tokens(source)
  const found = imports(all).flatMap((one) => refuse(path, room, one, house))
  if (!DEFAULT_FILES.includes(path))
    for (const { what, line } of badExports(all))
      found.push(`${path}:${line}: ${what}; exports have names`)
  if (room.pure === true)
    for (const { what, line } of impure(all))
      found.push(`${path}:${line}: ${what} in a pure room; take it as an argument`)
  if (room.env !== true && !ENV_FILES.includes(path))
    for (const line of environment(all))
      found.push(`${path}:${line}: process.env; only gateway/config.ts and cli read it`)
  return found
}

function refuse(path: string, room: Room, one: Import, house: House): string[] {
  const at = `${path}:${one.line}`
  // Tests load what they are given; nobody else does.
  if (one.from === null) return room.env === true ? [] : [`${at}: ${one.how} of a computed name`]
  if (one.from.startsWith('.')) return relative(path, room, one.from, at)
  return allowed(room, one.from, house) ? [] : [`${at}: ${room.folder} may not import ${one.from}`]
}

function relative(path: string, room: Room, from: string, at: string): string[] {
  const target = posix.join(posix.dirname(path), from)
  if (target === 'package.json' && room.pure !== true) return []
  const other = roomOf(target)
  if (room.folder === 'gateway' && target.startsWith('gateway/listen/') && isDomain(path))
    return [
      `${at}: ${path.split('/', 2).join('/')} may not import gateway/listen; listen uses it, never the reverse`,
    ]
  if (other === room) return []
  const known = room.may.some(
    (folder) =>
      folder === other?.folder ||
      (INSIDES.includes(folder) && target.startsWith(`${folder}/`) && room.env === true),
  )
  return known
    ? []
    : [`${at}: ${room.folder} may not reach into ${other?.folder ?? target}; rooms meet at doors`]
}

/** A folder of gateway/ that holds a domain: all but listen itself and the wiring at the top. */
function isDomain(path: string): boolean {
  return path.split('/').length > 2 && !path.startsWith('gateway/listen/')
}

function allowed(room: Room, from: string, house: House): boolean {
  if (room.may.includes(from)) return true
  if (from.startsWith('node:')) return room.may.includes('node:*')
  if (from.startsWith('#')) return false
  const name = from
    .split('/')
    .slice(0, from.startsWith('@') ? 2 : 1)
    .join('/')
  if (room.may.includes(name)) return true
  if (room.may.includes('npm:*')) return house.runtime.includes(name)
  return room.may.includes('dev:*') && [...house.runtime, ...house.development].includes(name)
}

interface Touch {
  readonly what: string
  readonly line: number
}
const TIMERS = ['setTimeout', 'setInterval', 'setImmediate']
const RANDOM = [
  'randomBytes',
  'randomUUID',
  'randomInt',
  'randomFill',
  'randomFillSync',
  'getRandomValues',
]
const READINGS = { Date: 'now', Math: 'random', performance: 'now', process: 'hrtime' } as const

function impure(all: readonly Token[]): Touch[] {
  const found: Touch[] = []
  for (const [at, token] of all.entries()) {
    if (token.kind !== 'word') continue
    const member = Object.entries(READINGS).find(([object]) => object === token.text)?.[1]
    if (member !== undefined && !isMark(all[at - 1], '.') && names(all, at, member))
      found.push({ what: `${token.text}.${member}`, line: token.line })
    if (token.text === 'Date' && isMark(all[at + 1], '(') && isMark(all[at + 2], ')'))
      found.push({ what: 'new Date()', line: token.line })
    if ([...TIMERS, ...RANDOM].includes(token.text) && isMark(all[at + 1], '('))
      found.push({ what: token.text, line: token.line })
  }
  return found
}

function environment(all: readonly Token[]): number[] {
  const found: number[] = []
  for (const [at, token] of all.entries()) {
    if (isWord(token, 'process') && names(all, at, 'env')) found.push(token.line)
    if (token.kind === 'string' && token.text === 'node:process') found.push(token.line)
  }
  return found
}

/** `object.member`, `object?.member` or `object['member']`. */
function names(all: readonly Token[], at: number, member: string): boolean {
  const rest = all.slice(at + 1, at + 4).filter((token) => !isMark(token, '?'))
  if (isMark(rest[0], '.')) return isWord(rest[1], member)
  return isMark(rest[0], '[') && rest[1]?.kind === 'string' && rest[1].text === member
}

/** What is wrong with a door: it is a page of `export { … } from`, at the place package.json says. */
export function doorComplaints(name: string, path: string, source: string): string[] {
  const found: string[] = []
  if (posix.basename(path) !== 'index.ts') found.push(`${name}: ${path} is not an index.ts`)
  const all = tokens(source)
  let at = 0
  for (let end = afterStatement(all, 0); end > at; end = afterStatement(all, at)) at = end
  const rest = all[at]
  if (rest !== undefined)
    found.push(`${path}:${rest.line}: a door holds only \`export { … } from\``)
  if (all.length === 0) found.push(`${path}: an empty door`)
  return found
}

/** Past one `import '…'` or `export { … } from '…'`, or where it stood if there is neither. */
function afterStatement(all: readonly Token[], at: number): number {
  if (isWord(all[at], 'import') && all[at + 1]?.kind === 'string') return at + 2
  const open = isWord(all[at + 1], 'type') ? at + 2 : at + 1
  if (!isWord(all[at], 'export') || !isMark(all[open], '{')) return at
  const close = all.findIndex((token, place) => place > open && isMark(token, '}'))
  return isWord(all[close + 1], 'from') ? close + 3 : at
}

/** The files that loading `entry` loads at once: static imports followed, types and dynamic ones not. */
export function loadedWith(
  entry: string,
  read: (path: string) => string | undefined,
): { readonly files: string[]; readonly others: string[] } {
  const files = new Set<string>()
  const others = new Set<string>()
  const queue = [entry]
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const source = files.has(path) ? undefined : read(path)
    if (source === undefined) continue
    files.add(path)
    for (const { how, from } of imports(tokens(source))) {
      if (from === null || (how !== 'import' && how !== 'export from')) continue
      if (from.startsWith('.')) queue.push(posix.join(posix.dirname(path), from))
      else others.add(from)
    }
  }
  return { files: [...files].sort(), others: [...others].sort() }
}
