/**
 * The program of a declaration as it would be run now: its file open and hashed, whom it would run as.
 * What is reported is what will be run, because the very descriptor that was hashed is executed.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { resolve } from 'node:path'
import { Refused } from '../ask.ts'
import { messageOf } from '../errors.ts'
import { unseen } from '../scope/observed.ts'
import type { Observed } from '../scope/observed.ts'
import type { Executables } from '../scope/executable.ts'
import { identify } from '../scope/executable.ts'
import { scriptArgument } from '../scope/script.ts'
import { findUser } from './declaration.ts'
import type { Spawned, User } from './declaration.ts'

/** The file that an interpreter is told to run, as it was when it was hashed. */
interface Script {
  readonly path: Buffer
  readonly id: string | null
  readonly sha256: string | null
}

export class Program implements Disposable {
  /** Of the file that was hashed. */
  readonly fd: number
  readonly user: User
  readonly observed: Observed
  /** Of the file's state: what identifies it as the one that was hashed. */
  readonly id: string
  readonly #script: Script | undefined
  #open = true

  private constructor(
    fd: number,
    user: User,
    { observed, id, script }: { observed: Observed; id: string; script: Script | undefined },
  ) {
    this.fd = fd
    this.user = user
    this.observed = observed
    this.id = id
    this.#script = script
  }

  /** Rejects with Refused `spawn.program`. */
  static async open(
    declared: Spawned,
    executables: Executables,
    phase: Observed['phase'],
  ): Promise<Program> {
    const user = findUser(declared.user)
    if (user === undefined)
      throw new Refused('spawn.program', `there is no user ${declared.user} here, or it is root`)
    const fd = openExecutable(declared.argv[0])
    try {
      const { id, path, sha256 } = await executables.look(`/proc/self/fd/${fd}`)
      if (id === null || path === null || sha256 === null)
        throw new Refused('spawn.program', `${declared.argv[0]} cannot be read whole, or changes`)
      const script = await seen(scriptOf(declared, path), executables)
      const facts = { exe: path, sha256, script_sha256: script?.sha256 ?? null, uid: user.uid }
      return new Program(fd, user, { observed: { ...unseen(phase), ...facts }, id, script })
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /**
   * Whether the file still is what was hashed, and the name of the script still leads to what was. The
   * interpreter opens the script by its name itself: what happens to it after this call is not seen.
   */
  async unchanged(): Promise<boolean> {
    if (!this.#open || (await identify(`/proc/self/fd/${this.fd}`)) !== this.id) return false
    return (
      this.#script === undefined || (await identifyNamed(this.#script.path)) === this.#script.id
    )
  }

  [Symbol.dispose](): void {
    if (this.#open) closeSync(this.fd)
    this.#open = false
  }
}

/** Rejects with Refused `spawn.program` where it changes while it is read. */
async function seen(
  path: Buffer | undefined,
  executables: Executables,
): Promise<Script | undefined> {
  if (path === undefined) return undefined
  const id = await identifyNamed(path)
  const sha256 = await executables.content(path)
  if ((await identifyNamed(path)) !== id)
    throw new Refused('spawn.program', `${path.toString('utf8')} changes while it is read`)
  return { path, id, sha256 }
}

function identifyNamed(path: Buffer): Promise<string | null> {
  return identify(path.toString('utf8'))
}

function openExecutable(path: string): number {
  let fd: number
  try {
    // Not to wait for whoever would write to a pipe of that name.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw new Refused('spawn.program', `${path} cannot be opened: ${messageOf(error)}`)
  }
  const head = Buffer.alloc(2)
  const regular = fstatSync(fd).isFile()
  if (regular) readSync(fd, head, 0, 2, 0)
  if (regular && head.toString('latin1') !== '#!') return fd
  closeSync(fd)
  throw new Refused(
    'spawn.program',
    regular
      ? `${path} is a script: declare its interpreter as the executable and the script as its argument`
      : `${path} is no file`,
  )
}

/** The file that an interpreter is told to run. */
function scriptOf({ argv, cwd }: Spawned, exe: string): Buffer | undefined {
  const cmdline = Buffer.from(argv.map((word) => `${word}\0`).join(''), 'utf8')
  const argument = scriptArgument(exe, cmdline)
  return argument === undefined ? undefined : Buffer.from(resolve(cwd, argument.toString('utf8')))
}
