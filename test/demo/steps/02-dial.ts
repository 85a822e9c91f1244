/**
 * Step 2: both agents dial out over mutual TLS and appear connected; no process of a device listens
 * on anything but its own loopback target. What they expose is registered from what was observed.
 */
import type { Device } from '#api'
import { startAgent } from '../agents.ts'
import { expect, until } from '../failure.ts'
import { listening, processTree } from '../proc.ts'
import type { Program } from '../programs.ts'
import type { Found, Stage } from '../stage.ts'
import { startHmi, startPlc, type Executables } from '../targets.ts'
import type { Enrolled } from './01-enrol.ts'

export interface Connected extends Found {
  readonly plc: Program
  readonly agents: readonly Program[]
}

const CONNECT_MS = 30_000
const PQ = 'X25519MLKEM768'

export async function dialOut(
  stage: Stage,
  enrolled: Enrolled,
  executables: Executables,
): Promise<Connected> {
  const plc = await startPlc(stage, executables.plc, 'plc')
  const hmi = await startHmi(stage, executables.hmi)
  const agents = [startAgent(stage, enrolled.press07), startAgent(stage, enrolled.press08)]
  const devices = await until('both devices connected', CONNECT_MS, async () => {
    const list = (await stage.sallyport.ask('admin', 'device', 'list')) as Device[]
    return list.length === 2 && list.every((device) => device.connected) ? list : undefined
  })
  for (const device of devices)
    expect(
      device.tls?.group === PQ && device.tls.pq,
      `${PQ} on the tunnel of ${device.id}`,
      device.tls,
    )
  for (const agent of agents) {
    const open = listening(processTree(agent.pid))
    expect(open.length === 0, `${agent.name} to listen on nothing`, open)
  }
  expectOnly(plc, `tcp 127.0.0.1:${stage.ports.plc}`)
  expectOnly(hmi, `tcp 127.0.0.1:${stage.ports.hmi}`)
  const seen = [
    await register(stage, 'press-07/plc', 'modbus', executables.plc.sha256),
    await register(stage, 'press-08/hmi', 'http', executables.hmi.sha256),
  ]
  const tls = devices
    .map(({ id, tls: facts }) => `${id} ${facts?.version} ${facts?.group}`)
    .join(', ')
  return {
    plc,
    agents,
    found: [tls, 'agents listen on nothing; plc and hmi each on one loopback port', ...seen],
  }
}

function expectOnly(program: Program, socket: string): void {
  const open = listening(processTree(program.pid))
  expect(
    open.length === 1 && open[0] === socket,
    `${program.name} to listen on ${socket} alone`,
    open,
  )
}

/** Approves what the agent reports as listening, as an engineer would, and checks that it is the right file. */
async function register(
  stage: Stage,
  place: string,
  kind: string,
  sha256: string,
): Promise<string> {
  const row = await until(`${place} observed by its agent`, CONNECT_MS, async () => {
    const answer = await stage.sallyport.ask(
      'admin',
      'process',
      'set',
      place,
      '--kind',
      kind,
      '--observed',
      '--yes',
    )
    return answer as Device['processes'][number]
  })
  expect(
    row.expect.sha256?.[0] === sha256,
    `${place} to be the executable that was started (${sha256})`,
    row.expect,
  )
  return `${place} is ${row.expect.exe?.[0]?.split('/').at(-1)}, SHA-256 ${sha256.slice(0, 16)}…`
}
