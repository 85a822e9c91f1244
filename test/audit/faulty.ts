/** A writer's thread whose disk fails on demand. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { realDisk } from '../../audit/disk.ts'
import { serve } from '../../audit/serve.ts'

export interface Fault {
  readonly kind: 'sync' | 'write'
  /** The first act of its kind to fail, counted from 1, and how many do. */
  readonly at: number
  readonly times: number
}

/** @public The file that faultyThread writes calls it. */
export function serveFaulty(fault: Fault): void {
  let count = 0
  const maybeFail = (kind: Fault['kind']): void => {
    if (kind !== fault.kind) return
    count++
    if (count >= fault.at && count < fault.at + fault.times)
      throw Object.assign(new Error(`EIO: i/o error, ${kind}`), { code: 'EIO' })
  }
  serve({
    ...realDisk,
    pwrite(fd, bytes, position) {
      maybeFail('write')
      return realDisk.pwrite(fd, bytes, position)
    },
    fdatasync(fd) {
      maybeFail('sync')
      realDisk.fdatasync(fd)
    },
  })
}

/** The thread's file; a worker's URL cannot carry the fault, so it is written for it. */
export function faultyThread(directory: string, fault: Fault): URL {
  const path = join(directory, 'faulty.mjs')
  writeFileSync(
    path,
    `import { serveFaulty } from '${import.meta.url}'\nserveFaulty(${JSON.stringify(fault)})\n`,
  )
  return pathToFileURL(path)
}
