/** Many devices in one process, each with a tunnel as an agent has it, and nothing to do. Answers over IPC. */
import { ALPN, dialTls, type Tunnel } from '#tunnel'
import { answerWith } from './rpc.ts'

export interface HerdAsk {
  readonly port: number
  readonly anchor: string
  readonly devices: readonly { readonly key: string; readonly cert: string }[]
}

const tunnels: Tunnel[] = []
const AT_ONCE = 8
const encode = (value: unknown) => Buffer.from(JSON.stringify(value))

async function dial({ port, anchor, devices }: HerdAsk, at: number): Promise<void> {
  const device = devices[at]
  if (device === undefined) return
  const connection = { host: '127.0.0.1', port, servername: 'localhost', ca: anchor, ...device }
  const tunnel = await dialTls(connection, { role: 'agent', instance: `herd-${at}`, epoch: 0 })
  const hello = {
    v: 1,
    agent: { version: '0.1.0', version_int: 1000, now_ms: Date.now() },
    tls: { version: 'TLSv1.3', cipher: ALPN, group: null },
    targets: [],
  }
  await tunnel.open('control', encode(hello))
  tunnels.push(tunnel)
}

const asks = {
  /** Dials for each device; gives how many tunnels this process has now. */
  async dial(ask: HerdAsk): Promise<number> {
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < ask.devices.length) await dial(ask, next++)
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    return tunnels.length
  },
}
export type Herd = typeof asks

answerWith(asks)
