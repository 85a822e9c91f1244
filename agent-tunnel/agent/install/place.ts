/**
 * Where an installed agent lies, below the root of this machine or of an image that is being made; and how a file
 * gets there: aside, synced, renamed, so that at any power cut there is the old one or the new one.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { syncDirectory } from '#boot'
import { readIfPresent, removeDurably, writeDurably } from '../files.ts'
import { unfit } from './system.ts'
import { readUnit, UNIT } from './unit.ts'

/** What the program was made of; goes with it. */
const LICENCES = ['THIRD-PARTY.txt', 'NODE-LICENSE.txt']
const LIB = '/usr/local/lib/sallyport'
const UNDER_WAY = `${LIB}/under-way`
const UNITS = '/etc/systemd/system'
/** Names the user of the service to systemd, now or at the first boot of an image. sysusers.d(5). */
export const USERS = '/etc/sysusers.d/sallyport.conf'
/** Only in an image: gives what was made there to that user, once there is one. tmpfiles.d(5). */
const OWNERS = '/etc/tmpfiles.d/sallyport.conf'
export const COMMAND = '/usr/local/bin/sallyport-agent'
export const DATA = '/var/lib/sallyport'

/** The agent in one file: a script for `node`, or Node and script in one (`node` undefined). */
export interface Program {
  readonly file: string
  readonly node: string | undefined
}

export class Place {
  readonly #root: string

  /** `root`: `/` by any name, or the folder that will be it. Throws AgentError `install.unfit` for no name. */
  constructor(root: string) {
    if (root === '')
      throw unfit(
        'An empty --root names no folder.',
        'Name the folder of the image, or leave --root out for this machine.',
      )
    this.#root = existsSync(root) ? realpathSync(root) : resolve(root)
  }

  /** Whether it is this machine, and not an image. */
  get live(): boolean {
    return this.#root === '/'
  }

  /** `path`, as it is reached from here. */
  at(path: string): string {
    return join(this.#root, path)
  }

  /** Notes durably that an installation is under way. Gives whether an earlier one did not get to `finish`. */
  begin(): boolean {
    const before = readIfPresent(this.at(UNDER_WAY)) !== undefined
    if (!before) this.#write(UNDER_WAY, Buffer.from('\n'), 0o644)
    return before
  }

  /** What was installed is what runs. */
  finish(): void {
    removeDurably(this.at(UNDER_WAY))
  }

  /** How the service starts `program`, once it is placed. */
  exec({ node }: Program): string[] {
    const own = `${LIB}/sallyport-agent`
    return node === undefined ? [own] : [node, `${own}.cjs`]
  }

  /** Puts `program` and its command in place. Gives whether anything changed. Throws AgentError `data.unwritable`. */
  program(program: Program): boolean {
    const words = this.exec(program)
    const own = words.at(-1) ?? ''
    makeFolder(this.at(LIB))
    // It is ours alone, and one that was made under another umask is opened.
    chmodSync(this.at(LIB), 0o755)
    const placed = this.#write(own, readFileSync(program.file), 0o755)
    for (const name of LICENCES) {
      const text = readIfPresent(join(dirname(program.file), name))
      if (text !== undefined) this.#write(`${LIB}/${name}`, Buffer.from(text), 0o644)
    }
    const command = `#!/bin/sh\nexec ${words.map(quoted).join(' ')} "$@"\n`
    const called = this.#write(COMMAND, Buffer.from(command), 0o755)
    return placed || called
  }

  /** Makes the folders above `path`, for everybody to pass through. */
  above(path: string): void {
    makeFolder(dirname(this.at(path)))
  }

  /** Names `user` to systemd, with `home`. Throws AgentError `data.unwritable`. */
  users(user: string, home: string, live: boolean): void {
    this.#write(USERS, Buffer.from(`u ${user} - "Sallyport agent" ${home}\n`), 0o644)
    if (!live) this.#write(OWNERS, Buffer.from(`Z ${home} - ${user} ${user}\n`), 0o644)
  }

  /** Puts the unit in place. Gives whether it is another one than before. Throws AgentError `data.unwritable`. */
  unit(text: string): boolean {
    return this.#write(`${UNITS}/${UNIT}`, Buffer.from(text), 0o644)
  }

  /** Has the unit started at boot, where no systemd runs that could be told. */
  enable(): void {
    const link = this.at(`${UNITS}/multi-user.target.wants/${UNIT}`)
    makeFolder(dirname(link))
    const to = `${UNITS}/${UNIT}`
    if (linked(link) === to) return
    rmSync(`${link}.new`, { force: true })
    symlinkSync(to, `${link}.new`)
    renameSync(`${link}.new`, link)
    syncDirectory(dirname(link))
  }

  /** The unit that is there; undefined where there is none. */
  installed(): string | undefined {
    return readIfPresent(this.at(`${UNITS}/${UNIT}`))
  }

  /** What the unit that is there says of its service; undefined where there is none, or another's. */
  service(): ReturnType<typeof readUnit> {
    const text = this.installed()
    return text === undefined ? undefined : readUnit(text)
  }

  /** Whether `path`, without any link in it, lies below the root. */
  holds(path: string): boolean {
    return this.live || path.startsWith(`${this.#root}/`)
  }

  /** Takes away what was put here; the command and then what it runs last, so that a second run can go on. */
  remove(): void {
    rmSync(this.at(`${UNITS}/multi-user.target.wants/${UNIT}`), { force: true })
    removeDurably(this.at(`${UNITS}/${UNIT}`))
    for (const path of [USERS, OWNERS, COMMAND]) removeDurably(this.at(path))
    rmSync(this.at(LIB), { recursive: true, force: true })
  }

  #write(path: string, bytes: Buffer, mode: number): boolean {
    const file = this.at(path)
    makeFolder(dirname(file))
    const written = !same(file, bytes)
    if (written) writeDurably(file, bytes, mode)
    // Whatever umask the person has: the service's own user has to read it.
    if ((statSync(file).mode & 0o7777) !== mode) chmodSync(file, mode)
    return written
  }
}

/** Makes `path` and its parents, each for everybody to pass through, whatever umask the person has. */
function makeFolder(path: string): void {
  // Not chmod afterwards: what ends the program between the two would leave a folder that nobody mends.
  const before = process.umask(0o022)
  try {
    mkdirSync(path, { recursive: true, mode: 0o755 })
  } finally {
    process.umask(before)
  }
}

function same(path: string, bytes: Buffer): boolean {
  try {
    return readFileSync(path).equals(bytes)
  } catch {
    return false
  }
}

function linked(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** A word for sh(1). */
function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}
