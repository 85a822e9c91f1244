/** The table: stream states x events. The diagram in docs/protocol.md section 5 is made from it. */
import type { MuxCode } from './errors.ts'

/**
 * A stream as one end sees it. `reset` is a stream this end has reset while frames of the peer may
 * still be on their way; they are dropped until the peer has answered a PING sent after the RESET.
 */
export type StreamState =
  | 'idle'
  | 'opening'
  | 'offered'
  | 'open'
  | 'finSent'
  | 'finReceived'
  | 'reset'
  | 'closed'

/** Frames sent and received, without those of stream 0. `Data` stands for DATAGRAM too. */
export type StreamEvent =
  | 'sendOpen'
  | 'recvOpen'
  | 'sendAccept'
  | 'recvAccept'
  | 'sendRefuse'
  | 'recvRefuse'
  | 'sendData'
  | 'recvData'
  | 'recvWindow'
  | 'sendSignal'
  | 'recvSignal'
  | 'sendFin'
  | 'recvFin'
  | 'sendReset'
  | 'recvReset'

type Cell = StreamState | MuxCode
type Row = Readonly<Record<StreamEvent, Cell>>

const local = {
  sendOpen: 'call.state',
  sendAccept: 'call.state',
  sendRefuse: 'call.state',
  sendData: 'call.state',
  sendSignal: 'call.state',
  sendFin: 'call.state',
  sendReset: 'call.state',
} as const

const beforeAccept = {
  recvData: 'stream.unaccepted',
  recvWindow: 'stream.unaccepted',
  recvSignal: 'stream.unaccepted',
  recvFin: 'stream.unaccepted',
} as const

const established = {
  ...local,
  recvOpen: 'stream.order',
  recvAccept: 'stream.answered',
  recvRefuse: 'stream.answered',
  sendReset: 'reset',
  recvReset: 'closed',
} as const

/** Every cell: the state that follows, or the code of the error (codes have a dot). */
export const table: Readonly<Record<StreamState, Row>> = {
  idle: {
    ...local,
    sendOpen: 'opening',
    recvOpen: 'offered',
    recvAccept: 'stream.unknown',
    recvRefuse: 'stream.unknown',
    recvData: 'stream.unknown',
    recvWindow: 'stream.unknown',
    recvSignal: 'stream.unknown',
    recvFin: 'stream.unknown',
    recvReset: 'stream.unknown',
  },
  opening: {
    ...local,
    ...beforeAccept,
    recvOpen: 'stream.parity',
    recvAccept: 'open',
    recvRefuse: 'closed',
    sendReset: 'reset',
    recvReset: 'closed',
  },
  offered: {
    ...local,
    ...beforeAccept,
    recvOpen: 'stream.order',
    sendAccept: 'open',
    sendRefuse: 'closed',
    recvAccept: 'stream.answered',
    recvRefuse: 'stream.answered',
    recvReset: 'closed',
  },
  open: {
    ...established,
    sendData: 'open',
    recvData: 'open',
    recvWindow: 'open',
    sendSignal: 'open',
    recvSignal: 'open',
    sendFin: 'finSent',
    recvFin: 'finReceived',
  },
  finSent: {
    ...established,
    recvData: 'finSent',
    recvWindow: 'finSent',
    sendSignal: 'finSent',
    recvSignal: 'finSent',
    recvFin: 'closed',
  },
  finReceived: {
    ...established,
    sendData: 'finReceived',
    recvData: 'stream.finished',
    recvWindow: 'finReceived',
    sendSignal: 'finReceived',
    recvSignal: 'finReceived',
    sendFin: 'closed',
    recvFin: 'stream.finished',
  },
  reset: {
    ...local,
    recvOpen: 'stream.order',
    recvAccept: 'reset',
    recvRefuse: 'closed',
    recvData: 'reset',
    recvWindow: 'reset',
    recvSignal: 'reset',
    recvFin: 'reset',
    recvReset: 'closed',
  },
  // WINDOW, SIGNAL, RESET and REFUSE may have crossed the end of the stream: their sender could not
  // know, and they cost nothing.
  closed: {
    ...local,
    recvOpen: 'stream.order',
    recvAccept: 'stream.closed',
    recvRefuse: 'closed',
    recvData: 'stream.closed',
    recvWindow: 'closed',
    recvSignal: 'closed',
    recvFin: 'stream.closed',
    recvReset: 'closed',
  },
}

/** Whether a cell is an error. */
export function isError(cell: Cell): cell is MuxCode {
  return cell.includes('.')
}

const words: Readonly<Record<string, string>> = { send: 'send', recv: 'receive' }

/** The state diagram in Mermaid, errors left out, one arrow for all events between two states. */
export function diagram(): string {
  const lines = ['stateDiagram-v2', '    [*] --> idle']
  for (const [from, row] of Object.entries(table)) {
    const arrows = new Map<string, string[]>()
    for (const [event, to] of Object.entries(row)) {
      if (isError(to) || to === from) continue
      const label = `${words[event.slice(0, 4)]} ${event.slice(4).toUpperCase()}`
      arrows.set(to, [...(arrows.get(to) ?? []), label])
    }
    for (const [to, labels] of arrows) lines.push(`    ${from} --> ${to}: ${labels.join(', ')}`)
  }
  return [...lines, '    closed --> [*]'].join('\n')
}
