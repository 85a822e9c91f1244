/** A writer's thread that keeps the log as it stands at steps of a prune: what a kill just there would leave. */
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { realDisk } from '../../audit/disk.ts'
import { serve } from '../../audit/serve.ts'

/** @public The file that imagingThread writes calls it. */
export function serveImaging(log: string, into: string): void {
  let removed = 0
  const image = (name: string): void => cpSync(log, join(into, name), { recursive: true })
  serve({
    ...realDisk,
    remove(path) {
      // Opening the log takes an unfinished file away; that is no step.
      if (path.endsWith('.aud') && [1, 3].includes(++removed)) image(`before-remove-${removed}`)
      realDisk.remove(path)
    },
    rename(from, to) {
      image('before-rename')
      realDisk.rename(from, to)
      image('after-rename')
    },
  })
}

/** The thread's file; a worker's URL cannot carry where to. */
export function imagingThread(directory: string, log: string, into: string): URL {
  const path = join(directory, 'imaging.mjs')
  writeFileSync(
    path,
    `import { serveImaging } from '${import.meta.url}'\nserveImaging(${JSON.stringify(log)}, ${JSON.stringify(into)})\n`,
  )
  return pathToFileURL(path)
}
