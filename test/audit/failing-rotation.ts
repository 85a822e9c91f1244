/** A disk that fails in the turn in which a rotation begins. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { EpochedOptions } from '../../audit/epoched.ts'
import type { Node } from './succession-fixture.ts'

/** A disk that takes nothing while `flag` is there; where it does not `persist`, one write alone. */
export const failing = (
  one: Node,
  persists: boolean,
): { readonly flag: string; readonly thread: URL } => {
  const at = join(one.options.directory, '..')
  const [flag, path] = [join(at, 'fails'), join(at, 'failing.mjs')]
  const room = new URL('../../audit/', import.meta.url)
  writeFileSync(
    path,
    `import { existsSync, rmSync } from 'node:fs'
import { realDisk } from '${new URL('disk.ts', room).href}'
import { serve } from '${new URL('serve.ts', room).href}'
const flag = ${JSON.stringify(flag)}
serve({ ...realDisk, pwrite(...args) {
  if (!existsSync(flag)) return realDisk.pwrite(...args)
  if (!${persists}) rmSync(flag)
  throw Object.assign(new Error('EIO: i/o error, write'), { code: 'EIO' })
} })
`,
  )
  return { flag, thread: pathToFileURL(path) }
}
/** Keys whose making, for a later epoch, puts the flag there. */
export const flagging = ({ options: { keys } }: Node, flag: string): EpochedOptions['keys'] => ({
  ...keys,
  make: (epoch) => {
    const made = keys.make(epoch)
    if (epoch > 1) writeFileSync(flag, '')
    return made
  },
})
