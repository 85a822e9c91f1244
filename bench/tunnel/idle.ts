/** What a device that is connected and does nothing costs the gateway: memory that stays, per tunnel. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { presenting, type DeviceIdentity, type TestNode } from '../../test/support/node.ts'
import type { Row } from '../row.ts'
import type { Herd } from './herd.ts'
import type { Site } from './path.ts'
import { programsIn } from './programs.ts'
import { Remote } from './rpc.ts'
import { spread } from './rows.ts'
import { startGateway } from './sallyport.ts'
import { residentKiB } from './usage.ts'

/** What the first ones cost is the gateway's own: code compiled, pools filled. */
const WARM = 100
/** Until the heaps of all threads have given back what the enrolments left: up to 60 MiB, seconds later. */
const REST_MS = 15_000
/** Enrolments under way at once. */
const AT_ONCE = 16
/** All come from one address and one administrator here: how fast they may is not what is measured. */
const UNPACED =
  'handshakes_per_source: 0\nhandshakes_of_strangers: 0\napi_rates: {reads: 0, writes: 0, costly: 0, strangers: 0}\n'

/** `rss_per_idle_tunnel_kib`, in `groups` groups of `count` tunnels, of a gateway that has carried nothing. */
export async function measureIdle(site: Site, groups: number, count: number): Promise<Row> {
  const directory = join(site.directory, 'idle')
  mkdirSync(directory, { recursive: true })
  const programs = programsIn(directory)
  try {
    const { gateway, node: started } = await startGateway(programs, directory, UNPACED)
    await using node = started
    await using herd = new Remote<Herd>(join(import.meta.dirname, 'herd.ts'))
    // All are enrolled before the first reading: what that leaves in the heap is not a tunnel's.
    const devices = await enrolled(node, WARM + groups * count)
    const { port, anchor } = node
    const dial = (from: number, to: number) =>
      herd.call('dial', { port, anchor, devices: devices.slice(from, to).map(presenting) })
    await dial(0, WARM)
    await pause(REST_MS)
    const readings = [await settled(gateway.pid)]
    for (let group = 0; group < groups; group++) {
      await dial(WARM + group * count, WARM + (group + 1) * count)
      readings.push(await settled(gateway.pid))
    }
    return rowOf(readings, groups, count)
  } finally {
    await programs.stopAll()
  }
}

const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms))

async function enrolled(node: TestNode, count: number): Promise<readonly DeviceIdentity[]> {
  const devices: DeviceIdentity[] = []
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) devices.push(await node.device(`idle-${next++}`))
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return devices
}

/** A heap grows in steps: what all of them added is the figure, what each group added its spread. */
function rowOf(readings: readonly number[], groups: number, count: number): Row {
  const each = readings.slice(1).map((now, at) => (now - (readings[at] ?? 0)) / count)
  const value = each.reduce((sum, one) => sum + one, 0) / groups
  return {
    metric: 'rss_per_idle_tunnel_kib',
    value: Number(value.toPrecision(3)),
    unit: 'KiB',
    reference: `RSS of the gateway after garbage collection, ${groups} groups of ${count} enrolled devices, each with an idle tunnel, after ${WARM} others; bar ≤ 90`,
    spread: spread(each),
  }
}

/** Resident KiB after garbage collection (limits.ts), once it no longer falls. */
async function settled(pid: number): Promise<number> {
  let least = Infinity
  for (let turn = 0; turn < 8; turn++) {
    process.kill(pid, 'SIGUSR2')
    await pause(150)
    least = Math.min(least, residentKiB(pid))
  }
  return least
}
