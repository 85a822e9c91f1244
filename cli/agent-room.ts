/** The room #agent, loaded by the command that needs it, with its errors as a command's. */
import type * as agentRoom from '#agent'
import { CliError } from './exit.ts'
import type { Exit } from './exit.ts'

export type AgentRoom = typeof agentRoom

/** Does `work`; an agent's error becomes a command's, with its exit code and next step. */
export async function withAgent<T>(work: (room: AgentRoom) => Promise<T>): Promise<T> {
  const room = await import('#agent')
  try {
    return await work(room)
  } catch (error) {
    if (!(error instanceof room.AgentError)) throw error
    const exit: Exit = ({ 1: 'failed', 2: 'usage', 3: 'denied' } as const)[
      room.agentCodes[error.code].exit
    ]
    const why =
      error.serverCode === undefined ? undefined : `the gateway's code is ${error.serverCode}`
    throw new CliError(
      error.message,
      { code: error.code, exit, why, next: error.next },
      { cause: error },
    )
  }
}
