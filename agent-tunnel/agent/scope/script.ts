/**
 * The script an interpreter was started with, as its command line says. The kernel keeps no record of
 * what an interpreter has read: this is the process's own word, and what the file holds now. It means
 * something together with the uid or unit of a service. docs/process-scope.md.
 */
import { readFile, readlinkSync } from 'node:fs'
import { promisify } from 'node:util'

/** By the name of the executable, the options that may stand before the script: none with a value. */
const INTERPRETERS: readonly (readonly [executable: RegExp, option: RegExp])[] = [
  [/^python(?:\d+(?:\.\d+)*)?$/, /^-[bBdEiIOPqsSuvx]+$/],
  [/^(?:node|nodejs)$/, /^--(?:enable-source-maps|no-warnings|use-strict)$/],
  [/^perl(?:\d+(?:\.\d+)*)?$/, /^-[twTWUuX]+$/],
  [/^ruby(?:\d+(?:\.\d+)*)?$/, /^-[wW]$/],
  [/^(?:ba|da|k|z)?sh$/, /^-[eufx]+$/],
  [/^(?:lua|php|tclsh)(?:\d+(?:\.\d+)*)?$/, /^$/],
]
// Not node:fs/promises, see executable.ts.
const readWhole = promisify<string, Buffer>(readFile)
const MAX_ARGUMENTS_BYTES = 64 * 1024

/**
 * The script argument of `cmdline` (the octets of /proc/PID/cmdline) where `exe` is an interpreter;
 * undefined where there is none, or an option stands before it that may take it for its value.
 */
export function scriptArgument(exe: string, cmdline: Buffer): Buffer | undefined {
  const name = exe.slice(exe.lastIndexOf('/') + 1)
  const [, option] = INTERPRETERS.find(([executable]) => executable.test(name)) ?? []
  if (option === undefined) return undefined
  let at = cmdline.indexOf(0) + 1
  while (at > 0 && at < cmdline.length) {
    const end = cmdline.indexOf(0, at)
    if (end < 0) return undefined
    const argument = cmdline.subarray(at, end)
    if (argument[0] !== 0x2d) return argument.length === 0 ? undefined : argument
    if (!option.test(argument.toString('latin1'))) return undefined
    at = end + 1
  }
  return undefined
}

/**
 * Where the script of `task` (a path below `proc`) is, to be opened from here; undefined where there is
 * none, or where the process sees other files than we do and the machine does (a container: its image says what it runs).
 */
export async function scriptPath(
  proc: string,
  task: string,
  exe: string,
): Promise<Buffer | undefined> {
  const directory = `${proc}/${task}`
  try {
    // The process's own memory: however long the kernel takes to get it, the agent goes on meanwhile.
    const cmdline = await readWhole(`${directory}/cmdline`)
    if (cmdline.length > MAX_ARGUMENTS_BYTES) return undefined
    const argument = scriptArgument(exe, cmdline)
    if (argument === undefined) return undefined
    const mounts = readlinkSync(`${directory}/ns/mnt`)
    const same = mounts === readlinkSync(`${proc}/self/ns/mnt`)
    // The unit of the agent gives it a view of its own of the machine's files; what runs beside it has the machine's.
    if (!same && mounts !== readlinkSync(`${proc}/1/ns/mnt`)) return undefined
    if (readlinkSync(`${directory}/root`) !== '/') return undefined
    if (argument[0] !== 0x2f) return Buffer.concat([Buffer.from(`${directory}/cwd/`), argument])
    return same ? argument : Buffer.concat([Buffer.from(`${directory}/root`), argument])
  } catch {
    return undefined
  }
}
