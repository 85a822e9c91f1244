/** A writer's thread whose disk a test fills, without filling one. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Its disk has no byte free once there is a file `full` beside the thread's own, in `directory`. */
export function fillable(directory: string): { readonly thread: URL; fill(): void } {
  const [path, full] = [join(directory, 'fillable.mjs'), join(directory, 'full')]
  const from = (name: string): string => new URL(`../../audit/${name}.ts`, import.meta.url).href
  writeFileSync(
    path,
    `import { existsSync } from 'node:fs'
import { realDisk } from '${from('disk')}'
import { serve } from '${from('serve')}'
serve({ ...realDisk, freeBytes: (path) => existsSync(${JSON.stringify(full)}) ? 0 : realDisk.freeBytes(path) })
`,
  )
  return { thread: pathToFileURL(path), fill: () => writeFileSync(full, '') }
}
