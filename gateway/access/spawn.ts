/**
 * What passes beside the bytes of a spawned program: the size of the person's window, and how the program
 * ended. Read strictly and written anew, so that nothing else does. docs/protocol.md section 13.
 */
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { Characters } from '../sessions/terminal.ts'
import type { Signals } from './splice.ts'

const Size = Type.Object({ t: Type.Literal('winsize'), rows: Characters, cols: Characters })
const Exit = Type.Object({
  t: Type.Literal('exit'),
  code: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
  signal: Type.Optional(Type.String({ pattern: '^SIG[A-Z0-9+-]{1,16}$' })),
})

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

function read(payload: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload))
  } catch {
    return undefined
  }
}

export const spawnSignals: Signals = {
  fromClient(payload) {
    const value = read(payload)
    if (!Value.Check(Size, value)) return undefined
    return encode({ t: 'winsize', rows: value.rows, cols: value.cols })
  },
  fromDevice(payload) {
    const value = read(payload)
    if (!Value.Check(Exit, value)) return undefined
    if (value.signal !== undefined) return encode({ t: 'exit', signal: value.signal })
    return value.code === undefined ? undefined : encode({ t: 'exit', code: value.code })
  },
}
