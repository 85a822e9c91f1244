/** Writers' threads that show what a prune meets: a kill at one of its steps, a head that is just being written. */
import { appendFileSync, cpSync, writeFileSync } from 'node:fs'
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

/** @public The file that signingThread writes calls it. */
export function serveSigning(log: string, part: string): void {
  serve({
    ...realDisk,
    remove(path) {
      if (path.endsWith('.aud')) appendFileSync(join(log, 'checkpoints.log'), part)
      realDisk.remove(path)
    },
  })
}

export function imagingThread(directory: string, log: string, into: string): URL {
  return threadOf(directory, 'serveImaging', log, into)
}

/** While segments go a head is being written: `part` of it stands there. */
export function signingThread(directory: string, log: string, part: string): URL {
  return threadOf(directory, 'serveSigning', log, part)
}

/** The thread's file; a worker's URL cannot carry what it is told. */
function threadOf(directory: string, serves: string, ...told: readonly string[]): URL {
  const path = join(directory, `${serves}.mjs`)
  const call = `${serves}(${told.map((one) => JSON.stringify(one)).join(', ')})`
  writeFileSync(path, `import { ${serves} } from '${import.meta.url}'\n${call}\n`)
  return pathToFileURL(path)
}
