/** One writer per log: the claim of a process on a directory. */
import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { AuditError } from './errors.ts'

/**
 * Claims a directory for this process: the kernel takes the claim back however the process ends.
 * Errors: log.locked.
 */
export async function claim(directory: string): Promise<Server | null> {
  // Abstract socket names exist on Linux alone; elsewhere the claim is left to the operator.
  if (process.platform !== 'linux') return null
  const name = createHash('sha256').update(realpathSync(directory)).digest('hex')
  const server = createServer()
  server.unref()
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new AuditError('log.locked', `${directory} is being written by another`, { cause })),
    )
    server.listen(`\0sallyport-audit-${name}`, resolve)
  })
  return server
}
