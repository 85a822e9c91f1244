/** Loopback ports for the demo's programs: the ones people remember where they are free, else any. */
import { once } from 'node:events'
import { createServer } from 'node:net'

export interface Ports {
  readonly gateway: number
  readonly operations: number
  readonly plc: number
  readonly hmi: number
  readonly siem: number
  readonly vendor: number
}

const NICE: Ports = {
  gateway: 8443,
  operations: 9443,
  plc: 15020,
  hmi: 18080,
  siem: 16514,
  vendor: 1502,
}

/** `nice`: prefer the memorable ports. Ports are held together until all are chosen, so all differ. */
export async function choosePorts(nice: boolean): Promise<Ports> {
  const held: AsyncDisposable[] = []
  const take = async (wanted: number): Promise<number> => {
    const taken = (nice ? await hold(wanted) : undefined) ?? (await hold(0))
    if (taken === undefined) throw new Error('no free port on 127.0.0.1')
    held.push(taken)
    return taken.port
  }
  try {
    return {
      gateway: await take(NICE.gateway),
      operations: await take(NICE.operations),
      plc: await take(NICE.plc),
      hmi: await take(NICE.hmi),
      siem: await take(NICE.siem),
      vendor: await take(NICE.vendor),
    }
  } finally {
    for (const one of held) await one[Symbol.asyncDispose]()
  }
}

async function hold(
  port: number,
): Promise<({ readonly port: number } & AsyncDisposable) | undefined> {
  const server = createServer()
  server.listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch {
    return undefined
  }
  const address = server.address()
  if (typeof address !== 'object' || address === null) return undefined
  return { port: address.port, [Symbol.asyncDispose]: async () => server[Symbol.asyncDispose]() }
}
