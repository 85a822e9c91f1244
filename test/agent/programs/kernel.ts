/**
 * What the kernel of this machine lets a user do. A row whose case needs it holds where the kernel refuses: the case cannot
 * be made there. Whether it does is asked by doing it, and only the kernel's own words count as its refusal.
 */
import { spawnSync } from 'node:child_process'

/** As strerror(3) and mount(8) write them: EPERM, EACCES, ENOSPC and EUSERS of a limit that is 0, EINVAL, ENOSYS (its words for a call that the kernel lacks), ENOTSUP. */
const REFUSAL =
  /operation not permitted|permission denied|no space left on device|too many users|invalid argument|not implemented|not supported|not available|unknown filesystem type|wrong fs type/i

/**
 * What the kernel says against what `file` does, or undefined where it is done. Throws where it fails in another way. `uid`:
 * who does it; where none is named, who runs the tests.
 */
export function refusalOf(file: string, args: readonly string[], uid?: number): string | undefined {
  const tried = spawnSync(file, args, {
    encoding: 'utf8',
    timeout: 60_000,
    ...(uid === undefined ? {} : { uid, gid: uid }),
  })
  if (tried.status === 0) return undefined
  if (tried.error === undefined && REFUSAL.test(tried.stderr)) return tried.stderr
  throw new Error(`${file} ${args.join(' ')}: ${tried.error?.message ?? tried.stderr}`)
}
