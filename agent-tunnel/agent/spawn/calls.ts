/**
 * The calls of libc that starting a program takes, through node:ffi: a terminal on our side, and on the
 * launcher's what must be done between fork and exec. Where they cannot be had nothing is spawned.
 */
import { constants } from 'node:os'

const DEFINITIONS = {
  posix_openpt: { arguments: ['i32'], return: 'i32' },
  grantpt: { arguments: ['i32'], return: 'i32' },
  unlockpt: { arguments: ['i32'], return: 'i32' },
  ptsname_r: { arguments: ['i32', 'pointer', 'u64'], return: 'i32' },
  ioctl: { arguments: ['i32', 'u64', 'pointer'], return: 'i32' },
  setsid: { arguments: [], return: 'i32' },
  setrlimit: { arguments: ['i32', 'pointer'], return: 'i32' },
  setgroups: { arguments: ['u64', 'pointer'], return: 'i32' },
  setresgid: { arguments: ['u32', 'u32', 'u32'], return: 'i32' },
  setresuid: { arguments: ['u32', 'u32', 'u32'], return: 'i32' },
  prctl: { arguments: ['i32', 'u64', 'u64', 'u64', 'u64'], return: 'i32' },
  dup2: { arguments: ['i32', 'i32'], return: 'i32' },
  fcntl: { arguments: ['i32', 'i32', 'i64'], return: 'i32' },
  signal: { arguments: ['i32', 'u64'], return: 'u64' },
  fexecve: { arguments: ['i32', 'pointer', 'pointer'], return: 'i32' },
  __errno_location: { arguments: [], return: 'u64' },
} as const

function load() {
  // Loading says to stderr that FFI is experimental; the agent's stderr is its log.
  const emit = Object.getOwnPropertyDescriptor(process, 'emitWarning')
  process.emitWarning = () => {}
  try {
    const ffi = process.getBuiltinModule('node:ffi')
    return { ...ffi.dlopen(null, DEFINITIONS).functions, ffi }
  } catch {
    return undefined
  } finally {
    if (emit !== undefined) Object.defineProperty(process, 'emitWarning', emit)
  }
}

export type Calls = NonNullable<ReturnType<typeof load>>

let loaded: { readonly calls: Calls | undefined } | undefined

/** The calls; undefined where they are not to be had. Loaded once. */
export function calls(): Calls | undefined {
  loaded ??= { calls: load() }
  return loaded.calls
}

/** The name of what the last call of this thread failed with, as `ENOENT`. */
export function lastError({ __errno_location: location, ffi }: Calls): string {
  const number = ffi.getInt32(location())
  const found = Object.entries(constants.errno).find(([, value]) => value === number)
  return found?.[0] ?? `errno ${number}`
}
