/** Writing to a controller, as the gateway lets it happen: who asks, what is sent, and a device that shows when it got what. */
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import type { Grant, OpenedSession } from '#api'
import { openSession, startNode, type Person, type TestNode } from '../../support/node.ts'
import { attach, expecting, PLC, seen, type FakeAgent, type Line } from '../../support/tunnels.ts'

export const WINDOW = { unit: 1, from: 0, to: 9 }
export const NEVER_SAID = 'dead'

interface Here {
  node: TestNode
  vendor: Person
  other: Person
  agent: FakeAgent
  /** What the device got, and how many events there were in the log by then. */
  got: { readonly frame: string; readonly events: number }[]
  open: { readonly grants: string[]; readonly sessions: OpenedSession[] }
}
/** Of the file that runs; the last two, of the row. */
export const here = {} as Here

/** A node, a controller that shows when it got what, and two people of one vendor. */
export function oneController(): void {
  beforeAll(async () => {
    here.node = await startNode()
    const identity = await here.node.device('press-07', {
      plc: expecting(undefined, 'modbus'),
      shell: expecting(),
    })
    ;[here.vendor, here.other, here.agent] = await Promise.all([
      here.node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      here.node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      attach(here.node, identity, {
        listeners: { plc: seen(PLC, 'listener'), shell: seen(PLC, 'listener') },
      }),
    ])
  })
  afterAll(async () => {
    await here.agent[Symbol.asyncDispose]()
    await here.node[Symbol.asyncDispose]()
  })
  beforeEach(() => {
    here.got = []
    here.open = { grants: [], sessions: [] }
    here.agent.target = (stream) => {
      stream.onEnd = () => stream.end()
      stream.onData = (chunk) => {
        stream.consumed(chunk.length)
        // Every request here has twelve octets, but the one for its name, which has eight and gets no answer.
        for (let at = 0; at + 12 <= chunk.length; at += 12) {
          const frame = Buffer.from(chunk.subarray(at, at + 12))
          here.got.push({ frame: frame.toString('hex'), events: here.node.size() })
          stream.write(
            frame[7] === 3 ? hex(`${frame.toString('hex', 0, 4)}00050103` + '02002a') : frame,
          )
        }
      }
    }
  })
  afterEach(async () => {
    for (const { id } of here.open.sessions) await here.vendor.call('POST', `/sessions/${id}/end`)
    for (const id of here.open.grants)
      await here.node.admin.call('POST', `/grants/${id}/revoke`, { reason: 'the test is over' })
  })
}

export async function asked(who: Person, body: object): Promise<Grant> {
  const grant = await who.ask<Grant>('POST', '/grants', {
    device: 'press-07',
    processes: ['plc'],
    duration_s: 600,
    reason: 'service',
    ...body,
  })
  here.open.grants.push(grant.id)
  return grant
}
export const approved = async ({ id, hash }: Grant): Promise<Grant> =>
  await here.node.admin.ask<Grant>('POST', `/grants/${id}/approve`, { hash })
export const reading = async (who = here.vendor) =>
  await approved(await asked(who, { duration_s: 3600 }))
export const writing = async (body: object = {}, who = here.vendor) =>
  await approved(await asked(who, { ot_level: 2, ot_windows: [WINDOW], ...body }))
export async function session(): Promise<OpenedSession> {
  const opened = await openSession(here.vendor, 'press-07', 'plc')
  here.open.sessions.push(opened)
  return opened
}

export const hex = (text: string) => Buffer.from(text, 'hex')
export const READ = hex('000100000006010300640001')
export const WRITE = hex(`00020000000601060005${NEVER_SAID}`)

/** Sends a frame and gives what comes back. */
export async function exchange(line: Line, frame: Buffer): Promise<string> {
  const before = line.total
  line.write(frame)
  await line.until('an answer', ({ total }) => total > before)
  return line.bytes.subarray(before).toString('hex')
}
export const writes = (from: number) =>
  here.node.events(from).filter(({ code }) => code === 'ot.write')
