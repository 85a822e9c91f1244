/** What a gateway says of a session on its streams: read, whatever it is, and never a reason to fall over. */
import { TunnelClosed, TunnelRefused } from '#tunnel'

/** A reason as the gateway gave it. */
export interface Reason {
  readonly code: string
  readonly message: string
  readonly next?: string | undefined
  readonly id?: string | undefined
}

/** How a spawned program ended: with a code, or by a signal. */
export type ProgramEnd = { readonly code: number } | { readonly signal: string }

/** A refusal's message may be JSON `{code, msg, remedy?, next_step?, decision_id?}`; else it is a sentence. */
export function reasonOf(code: string, message: string): Reason {
  const said = message.startsWith('{') ? readObject(Buffer.from(message)) : {}
  return {
    code: text(said['code']) ?? code,
    message: text(said['msg']) ?? message,
    next: text(said['next_step']) ?? text(said['remedy']),
    id: text(said['decision_id']),
  }
}

/** How a spawned program ended, where `payload` says so. */
export function programEnd(payload: Uint8Array): ProgramEnd | undefined {
  const { t, code, signal } = readObject(payload)
  if (t !== 'exit') return undefined
  if (typeof signal === 'string') return { signal }
  return typeof code === 'number' ? { code } : undefined
}

/** Why a stream was refused or could not be opened. */
export function refusal(error: unknown): Reason {
  if (error instanceof TunnelRefused || error instanceof TunnelClosed)
    return reasonOf(error.code, error.message)
  return reasonOf('client.failed', error instanceof Error ? error.message : String(error))
}

/** What is a text, or nothing. */
export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** A JSON object, or an empty one: what a peer says is never a reason to fall over. */
export function readObject(payload: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(payload))
    return typeof value === 'object' && value !== null ? { ...value } : {}
  } catch {
    return {}
  }
}
