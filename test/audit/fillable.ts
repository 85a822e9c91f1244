/** A writer's thread whose disk a test fills, without filling one. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
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

/** Its disk takes no byte of the first write behind `fill`, and any behind that; `limits` have it look at its room. */
export function fullOnce(directory: string): {
  readonly thread: URL
  readonly limits: { readonly breakglassBytes: number; readonly floorBytes: number }
  fill(): void
  /** What it did not take; null: it was asked for nothing yet. */
  refused(): string | null
} {
  const path = join(directory, 'full-once.mjs')
  const [full, refused] = [join(directory, 'full'), join(directory, 'refused')]
  const from = (name: string): string => new URL(`../../audit/${name}.ts`, import.meta.url).href
  writeFileSync(
    path,
    `import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { realDisk } from '${from('disk')}'
import { serve } from '${from('serve')}'
serve({
  ...realDisk,
  pwrite(fd, bytes, position) {
    if (!existsSync(${JSON.stringify(full)})) return realDisk.pwrite(fd, bytes, position)
    renameSync(${JSON.stringify(full)}, ${JSON.stringify(refused)})
    writeFileSync(${JSON.stringify(refused)}, bytes)
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
  },
})
`,
  )
  return {
    thread: pathToFileURL(path),
    // Below such a floor no reserve is filled: the first write is an event's.
    limits: { breakglassBytes: 1, floorBytes: Number.MAX_SAFE_INTEGER },
    fill: () => writeFileSync(full, ''),
    refused: () => (existsSync(refused) ? readFileSync(refused, 'latin1') : null),
  }
}
