/** Programs of this machine: whether one is there, and whether it takes connections yet. */
import { accessSync, constants, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { delimiter, join } from 'node:path'
import type { Program } from '../../test/demo/programs.ts'
import { until } from '../../test/support/node.ts'

/** Where a program is on PATH (and where administrators' programs are), or undefined. */
export function found(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return folders.map((folder) => join(folder, name)).find(isProgram)
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Resolves once `program` takes connections on 127.0.0.1:`port`; rejects after ten seconds or when it has ended. */
export async function listening(program: Program, port: number): Promise<void> {
  await until(`${program.name} on port ${port}`, async () => {
    if (program.ended !== undefined)
      throw new Error(`${program.name} ended: ${readFileSync(program.errors, 'utf8').trim()}`)
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const socket = connect(port, '127.0.0.1', () => resolve(true))
    socket.on('error', () => resolve(false))
    const taken = await promise
    socket.destroy()
    return taken
  })
}
