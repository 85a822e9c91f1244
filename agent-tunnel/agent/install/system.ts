/** What an installation asks of the machine: who a user is, a program run, a part of the work done as somebody. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { AgentError, messageOf } from '../errors.ts'

/** A user by numbers. */
export interface User {
  readonly uid: number
  readonly gid: number
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const MOST_SAID = 2048
/** Longer than systemd gives a service to stop. */
const PATIENCE_MS = 120_000

interface Ran {
  readonly code: number | null
  readonly out: string
  readonly says: string
}

async function ran(program: string, args: readonly string[]): Promise<Ran> {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH, LC_ALL: 'C' },
    timeout: PATIENCE_MS,
  })
  let [out, says] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out = (out + text).slice(0, MOST_SAID)
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    says = (says + text).slice(0, MOST_SAID)
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out: out.trim(), says: says.trim() }
}

/** Runs `program` to its good end. Rejects with AgentError `install.failed`, whose next step is `next`. */
export async function run(program: string, args: readonly string[], next: string): Promise<string> {
  let failed: string
  let cause: unknown
  try {
    const { code, out, says } = await ran(program, args)
    if (code === 0) return out
    failed = says === '' ? `it ended with ${code ?? 'a signal'}` : says
  } catch (error) {
    failed = messageOf(error)
    cause = error
  }
  const what = [program, ...args].join(' ')
  throw new AgentError('install.failed', `\`${what}\` failed: ${failed}.`, next, { cause })
}

/** Whether a service is running. */
export async function isActive(unit: string): Promise<boolean> {
  try {
    return (await ran('systemctl', ['is-active', '--quiet', unit])).code === 0
  } catch {
    return false
  }
}

/** The numbers of a user; undefined where there is none of this name. */
export async function userOf(name: string): Promise<User | undefined> {
  const numbers = await Promise.all(['-u', '-g'].map((which) => ran('id', [which, name])))
  const [uid, gid] = numbers.map(({ code, out }) => (code === 0 ? Number(out) : Number.NaN))
  return uid === undefined || gid === undefined || Number.isNaN(uid + gid)
    ? undefined
    : { uid, gid }
}

/**
 * Does `work` as `user`, so that root follows no link that this user has laid; undefined: as who we are. Nothing
 * else of this process may run meanwhile: it is the whole process that is somebody else.
 */
export async function as<T>(user: User | undefined, work: () => Promise<T>): Promise<T> {
  if (user === undefined) return await work()
  const { setgroups, setegid, seteuid, getgroups } = process
  if (!setgroups || !setegid || !seteuid || !getgroups) throw new Error('this system has no users')
  const before = getgroups()
  setgroups([user.gid])
  setegid(user.gid)
  seteuid(user.uid)
  try {
    return await work()
  } finally {
    seteuid(0)
    setegid(0)
    setgroups(before)
  }
}

/** Throws AgentError `install.unfit` where this is not root on a machine of systemd's. */
export function assertFit(): void {
  if (process.geteuid?.() !== 0)
    throw unfit('A service is installed by root, and this is another user.', 'Run it as root.')
  if (!existsSync('/run/systemd/system'))
    throw unfit(
      'This machine is not run by systemd.',
      'Enrol with `sallyport-agent enroll`, and have your own service manager run `sallyport-agent run`.',
    )
}

/** What is said before anything was changed. */
export function unfit(message: string, next: string): AgentError {
  return new AgentError('install.unfit', message, next)
}
