/** Events a receiver will never take: kept beside the cursor, durable before the sink goes on, each once. */
import * as fs from 'node:fs'
import { dirname } from 'node:path'

export interface Dead {
  readonly idx: number
  readonly uid: string
  readonly leaf: string
  /** What the receiver said. */
  readonly why: string
}

/** Appends `dead` to the file, one JSON object a line, and syncs it. */
export function bury(path: string, dead: readonly Dead[]): void {
  fs.mkdirSync(dirname(path), { recursive: true })
  const fd = fs.openSync(path, 'a', 0o600)
  try {
    fs.writeSync(fd, dead.map((one) => `${JSON.stringify(one)}\n`).join(''))
    fs.fdatasyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}
