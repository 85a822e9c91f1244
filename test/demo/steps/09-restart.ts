/**
 * Step 9: the gateway is killed with SIGKILL and started again. The devices come back by themselves;
 * nothing that was logged, issued or withdrawn is lost.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Device, Grant, LogEntry } from '#api'
import { openConnection, readings, startReads } from '../connection.ts'
import { expect, until } from '../failure.ts'
import type { GatewayNode } from '../gateway-node.ts'
import { readEvents } from '../log.ts'
import type { Program } from '../programs.ts'
import type { Found, Stage } from '../stage.ts'
import { approve, request } from './04-grant.ts'
import { logDirectory, verify } from './08-prove.ts'

const BACK_MS = 60_000

export async function killAndRestart(
  stage: Stage,
  gateway: GatewayNode,
  agents: readonly Program[],
  revoked: string,
): Promise<Found> {
  const before = await snapshot(stage)
  const held = join(stage.directory, 'held-checkpoint')
  writeFileSync(held, before.checkpoint)
  await gateway.kill()
  const down = performance.now()
  await gateway.start()
  const up = performance.now()
  await until('both devices back by themselves', BACK_MS, async () => {
    const devices = await list(stage)
    return devices.every((device) => device.connected) ? devices : undefined
  })
  const back = performance.now()
  for (const agent of agents)
    expect(agent.ended === undefined, `${agent.name} to have lived on`, agent.ended)
  const after = await snapshot(stage)
  expectKept(before, after, revoked)
  const { code, verdict } = await verify(stage, gateway, logDirectory(gateway), held)
  expect(code === 0, 'the log to be proven and to contain the checkpoint kept from before', verdict)
  await readAgain(stage)
  return {
    found: [
      `up again after ${Math.round(up - down)} ms, both devices back after ${Math.round(back - up)} ms more`,
      `all ${before.entries.length} events and both certificates are as before; proven: ${verdict.events} events`,
      'a new grant, a new session and a read through it',
    ],
  }
}

interface Snapshot {
  readonly devices: readonly Device[]
  readonly grants: readonly Grant[]
  readonly entries: readonly LogEntry[]
  readonly checkpoint: string
}

async function snapshot(stage: Stage): Promise<Snapshot> {
  const grants = (await stage.sallyport.ask('admin', 'grants')) as Grant[]
  const { entries, checkpoint } = await readEvents(stage)
  return { devices: await list(stage), grants, entries, checkpoint }
}

async function list(stage: Stage): Promise<Device[]> {
  return (await stage.sallyport.ask('admin', 'device', 'list')) as Device[]
}

function expectKept(before: Snapshot, after: Snapshot, revoked: string): void {
  for (const device of before.devices) {
    const now = after.devices.find(({ id }) => id === device.id)
    expect(
      now?.certificate?.serial === device.certificate?.serial,
      `the certificate of ${device.id}`,
      now,
    )
    expect(
      now?.processes.length === device.processes.length,
      `the processes of ${device.id}`,
      now?.processes,
    )
  }
  for (const entry of before.entries)
    expect(
      after.entries[entry.idx]?.leaf === entry.leaf,
      `event ${entry.idx} as before`,
      after.entries[entry.idx],
    )
  for (const grant of before.grants) {
    const now = after.grants.find(({ id }) => id === grant.id)
    expect(now?.hash === grant.hash, `grant ${grant.id} as before`, now)
  }
  const state = after.grants.find(({ id }) => id === revoked)?.state
  expect(state === 'revoked', 'the revoked grant to have stayed revoked', state)
}

/** The main job once more, on the restarted gateway. */
async function readAgain(stage: Stage): Promise<void> {
  await approve(stage, await request(stage, 'press-07/plc'))
  const connection = await openConnection(stage, 'press-07/plc')
  const reads = startReads(stage, 3, 100)
  await reads.end
  expect(readings(reads).length === 3, 'three reads after the restart', reads.lines.slice(-2))
  await connection.program.stop()
  expect(
    connection.program.ended === 0,
    'connect to end with exit code 0 when it is interrupted',
    connection.program.ended,
  )
}
