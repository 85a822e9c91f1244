/** What a device that is connected and does nothing costs the gateway: memory that stays, per tunnel. */
import { join } from 'node:path'
import { presenting, type DeviceIdentity } from '../../test/support/node.ts'
import type { Row } from '../row.ts'
import type { Herd } from './herd.ts'
import { Remote } from './rpc.ts'
import { spread } from './rows.ts'
import type { SallyportPath } from './sallyport.ts'
import { residentKiB } from './usage.ts'

/** What the first ones cost is the gateway's own: code compiled, pools filled. */
const WARM = 16

/** `rss_per_idle_tunnel_kib`, in `groups` groups of `count` tunnels. */
export async function measureIdle(
  path: SallyportPath,
  groups: number,
  count: number,
): Promise<Row> {
  await using herd = new Remote<Herd>(join(import.meta.dirname, 'herd.ts'))
  const { node, gateway } = path
  // All are enrolled before the first reading: what that leaves in the heap is not a tunnel's.
  const devices: DeviceIdentity[] = []
  for (let at = 0; at < WARM + groups * count; at++) devices.push(await node.device(`idle-${at}`))
  const { port, anchor } = node
  const dial = (from: number, to: number) =>
    herd.call('dial', { port, anchor, devices: devices.slice(from, to).map(presenting) })
  await dial(0, WARM)
  const readings = [await settled(gateway.pid)]
  for (let group = 0; group < groups; group++) {
    await dial(WARM + group * count, WARM + (group + 1) * count)
    readings.push(await settled(gateway.pid))
  }
  // A heap grows in steps: what all of them added is the figure, what each group added its spread.
  const each = readings.slice(1).map((now, at) => (now - (readings[at] ?? 0)) / count)
  const value = each.reduce((sum, one) => sum + one, 0) / groups
  const reference = `RSS of the gateway after garbage collection, ${groups} groups of ${count} enrolled devices, each with an idle tunnel; bar ≤ 90`
  return {
    metric: 'rss_per_idle_tunnel_kib',
    value: Number(value.toPrecision(3)),
    unit: 'KiB',
    reference,
    spread: spread(each),
  }
}

/** Resident KiB after garbage collection (limits.ts), once it no longer falls. */
async function settled(pid: number): Promise<number> {
  let least = Infinity
  for (let turn = 0; turn < 8; turn++) {
    process.kill(pid, 'SIGUSR2')
    await new Promise((wake) => setTimeout(wake, 150))
    least = Math.min(least, residentKiB(pid))
  }
  return least
}
