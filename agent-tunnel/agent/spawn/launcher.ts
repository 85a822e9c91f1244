/** How the launcher is started: from the sources a program of its own, in a build the one file there is, or the executable. */
import { isSea } from 'node:sea'
import { fileURLToPath } from 'node:url'
import { UPDATE_WORD } from '#boot'

/** The word that makes the built agent the launcher; cli/device.ts knows it. */
const LAUNCH_WORD = 'become-program'

/** An update lies in the agent's data, which what is spawned does not see: it is reached by a descriptor alone. */
const UPDATE = /\/update\/([0-9a-f]{64})\.cjs$/

/** Where the launcher finds its own file, if it cannot find it by its name. */
const OWN_FD = 5

export interface LauncherCommand {
  /** Program and arguments. */
  readonly words: readonly string[]
  /** What must be open as `OWN_FD`. */
  readonly file: string | undefined
}

/** `own`: the file that runs, as a URL; `executable`: in an executable that holds Node. */
export function launcherCommand(
  own: string = import.meta.url,
  executable = isSea(),
): LauncherCommand {
  const node = process.execPath
  if (own.endsWith('/launcher.ts')) {
    const launch = fileURLToPath(new URL('launch.ts', import.meta.url))
    return { words: [node, launch], file: undefined }
  }
  const file = fileURLToPath(own)
  const [, sha256] = UPDATE.exec(file) ?? []
  if (sha256 === undefined)
    return { words: [node, ...(executable ? [] : [file]), LAUNCH_WORD], file: undefined }
  // Without the option Node would look for the file by the name that the descriptor has.
  const how = executable ? [UPDATE_WORD, sha256] : ['--preserve-symlinks-main']
  return { words: [node, ...how, `/proc/self/fd/${OWN_FD}`, LAUNCH_WORD], file }
}
