/**
 * The calls of libc that Node does not offer, through node:ffi, taken out of this very process. Where
 * that cannot be, there are none, and what wanted them goes the long way. decisions/0011.
 */

/** Sizes, and results that may be negative, are 64 bit wide. */
export interface Libc {
  readonly socket: (family: number, kind: number, protocol: number) => number
  readonly send: (fd: number, data: Uint8Array, size: bigint, flags: number) => bigint
  readonly recv: (fd: number, into: Uint8Array, size: bigint, flags: number) => bigint
  readonly close: (fd: number) => number
  /** syscall(2) with the five arguments of kcmp(2). */
  readonly syscall: (
    number: bigint,
    pid1: bigint,
    pid2: bigint,
    type: bigint,
    index1: bigint,
    index2: bigint,
  ) => bigint
}

let loaded: { readonly calls: Libc | undefined } | undefined

/** The calls; undefined where they are not to be had. Loaded once. */
export function libc(): Libc | undefined {
  loaded ??= { calls: load() }
  return loaded.calls
}

function load(): Libc | undefined {
  // Loading says to stderr that FFI is experimental; the agent's stderr is its log.
  const emit = Object.getOwnPropertyDescriptor(process, 'emitWarning')
  process.emitWarning = () => {}
  try {
    const { dlopen } = process.getBuiltinModule('node:ffi')
    return dlopen(null, {
      socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
      send: { arguments: ['i32', 'pointer', 'u64', 'i32'], return: 'i64' },
      recv: { arguments: ['i32', 'pointer', 'u64', 'i32'], return: 'i64' },
      close: { arguments: ['i32'], return: 'i32' },
      syscall: { arguments: ['i64', 'i64', 'i64', 'i64', 'i64', 'i64'], return: 'i64' },
    }).functions
  } catch {
    return undefined
  } finally {
    if (emit !== undefined) Object.defineProperty(process, 'emitWarning', emit)
  }
}

const KCMP: Readonly<Partial<Record<NodeJS.Architecture, bigint>>> = { x64: 312n, arm64: 272n }
const KCMP_FILES = 2n

/**
 * Whether two tasks have one table of descriptors (kcmp(2)). Undefined where the kernel, the
 * architecture or a lack of privilege leaves that open.
 */
export function shareDescriptors(one: number, other: number): boolean | undefined {
  const number = KCMP[process.arch]
  if (number === undefined) return undefined
  const order = libc()?.syscall(number, BigInt(one), BigInt(other), KCMP_FILES, 0n, 0n)
  return order === undefined || order < 0n ? undefined : order === 0n
}
