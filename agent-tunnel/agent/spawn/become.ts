/**
 * The launcher: a process of its own inside the session's namespaces, which becomes the declared program.
 * It gives up what it has in an order in which nothing can be had back, and runs the open file that was
 * hashed, by no name. What fails is told on the control descriptor, which exec closes.
 */
import { readdirSync, readFileSync, writeSync } from 'node:fs'
import { calls, lastError } from './calls.ts'
import type { Calls } from './calls.ts'
import { CONTROL_FD, GOING, PROGRAM_FD } from './spec.ts'
import type { LaunchFailure, LaunchSpec } from './spec.ts'

const TIOCSCTTY = 0x540en
const F_SETFD = 2
const FD_CLOEXEC = 1n
/** prctl(2). */
const PR_SET_PDEATHSIG = 1
const PR_CAPBSET_DROP = 24
const PR_SET_NO_NEW_PRIVS = 38
const PR_CAP_AMBIENT = 47
const PR_CAP_AMBIENT_CLEAR_ALL = 4n
const MOST_CAPABILITIES = 64n
const SIGKILL = 9n
const RLIMIT_AS = 9
/** Node ignores them, and what is ignored stays so through exec. */
const IGNORED = [13, 25]

class Failed extends Error {
  readonly failure: LaunchFailure
  constructor(failure: LaunchFailure) {
    super(failure.step)
    this.failure = failure
  }
}

function fail(step: string, why: string): never {
  throw new Failed({ step, why })
}

function launch(spec: LaunchSpec): never {
  const libc = calls()
  if (libc === undefined) fail('libc', 'this runtime cannot call it')
  const must = (step: string, result: number) => {
    if (result < 0) fail(step, lastError(libc))
  }
  must('setsid', libc.setsid())
  if (spec.terminal) must('terminal', libc.ioctl(0, TIOCSCTTY, 0n))
  // The one of memory would be ours too: it is the last thing that is done.
  const [memory = [], others = []] = [
    spec.limits.filter(({ resource }) => resource === RLIMIT_AS),
    spec.limits.filter(({ resource }) => resource !== RLIMIT_AS),
  ].map((limits) => limits.map(({ resource, most }) => ({ resource, bounds: boundsOf(most) })))
  for (const { resource, bounds } of others)
    must(`limit ${resource}`, libc.setrlimit(resource, bounds))
  giveUp(libc, spec, must)
  try {
    process.chdir(spec.cwd)
  } catch (error) {
    fail('cwd', error instanceof Error && 'code' in error ? String(error.code) : 'failed')
  }
  for (const number of IGNORED) libc.signal(number, 0n)
  process.umask(0o077)
  must('stderr', libc.dup2(1, 2))
  // Node keeps all that it was given to itself.
  for (const fd of [0, 1, 2]) must('fcntl', libc.fcntl(fd, F_SETFD, 0n))
  // Whatever the agent was started with ends here, beside the program's own three.
  for (const fd of readdirSync('/proc/self/fd').map(Number))
    if (fd > 2) libc.fcntl(fd, F_SETFD, FD_CLOEXEC)
  const [argv, env] = [vector(libc, spec.argv), vector(libc, spec.env)]
  writeSync(CONTROL_FD, GOING)
  for (const { resource, bounds } of memory) libc.setrlimit(resource, bounds)
  libc.fexecve(PROGRAM_FD, argv.pointers, env.pointers)
  fail('exec', lastError(libc))
}

/** struct rlimit: soft and hard alike. */
function boundsOf(most: number): Uint8Array {
  return new Uint8Array(BigUint64Array.of(BigInt(most), BigInt(most)).buffer)
}

/** Every way to more rights than the user of the declaration has. */
function giveUp(libc: Calls, { user }: LaunchSpec, must: (step: string, result: number) => void) {
  // A capability that the kernel does not know, or that we may not drop, is not held after exec either way.
  for (let capability = 0n; capability < MOST_CAPABILITIES; capability++)
    libc.prctl(PR_CAPBSET_DROP, capability, 0n, 0n, 0n)
  if (user !== null) {
    must('setgroups', libc.setgroups(0n, 0n))
    must('setresgid', libc.setresgid(user.gid, user.gid, user.gid))
    must('setresuid', libc.setresuid(user.uid, user.uid, user.uid))
  }
  must('ambient', libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0n, 0n, 0n))
  must('no_new_privs', libc.prctl(PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n))
  must('pdeathsig', libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0n, 0n, 0n))
}

/** A NULL-ended array of C strings; `texts` keeps them where they are. */
function vector({ ffi }: Calls, words: readonly string[]) {
  const texts = words.map((word) => new Uint8Array(Buffer.from(`${word}\0`, 'utf8')))
  const addresses = texts.map((text) => ffi.getRawPointer(text))
  return { pointers: new Uint8Array(BigUint64Array.from([...addresses, 0n]).buffer), texts }
}

/** Becomes the program that the control descriptor names; does not come back. */
export function becomeProgram(): void {
  try {
    launch(JSON.parse(readFileSync(CONTROL_FD, 'utf8')) as LaunchSpec)
  } catch (error) {
    const failure: LaunchFailure =
      error instanceof Failed ? error.failure : { step: 'launcher', why: String(error) }
    writeSync(CONTROL_FD, JSON.stringify(failure))
    process.exit(127)
  }
}
