/** How the launcher is started: from the sources a program of its own, in a build the one file there is. */
import { isSea } from 'node:sea'
import { fileURLToPath } from 'node:url'

/** The word that makes the built agent the launcher; cli/device-main.ts knows it. */
const LAUNCH_WORD = 'become-program'

/** Program and arguments. */
export function launcherCommand(): readonly string[] {
  if (import.meta.url.endsWith('/launcher.ts'))
    return [process.execPath, fileURLToPath(new URL('launch.ts', import.meta.url))]
  if (isSea()) return [process.execPath, LAUNCH_WORD]
  return [process.execPath, fileURLToPath(import.meta.url), LAUNCH_WORD]
}
