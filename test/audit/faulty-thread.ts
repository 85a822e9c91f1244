/** A writer's thread whose disk fails on demand: `?sync=2&times=1` fails the second sync of a segment, once. */
import { realDisk } from '../../audit/disk.ts'
import { serve } from '../../audit/serve.ts'

const wanted = new URL(import.meta.url).searchParams
const at = Number(wanted.get('sync') ?? wanted.get('write') ?? '0')
const times = Number(wanted.get('times') ?? '1')
let count = 0

function maybeFail(kind: string): void {
  if (!wanted.has(kind)) return
  count++
  if (count >= at && count < at + times)
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
