/** Wires up what other gateways say has ended (devices/ending.ts) with this one's CA, its tunnels and its sessions. */
import { instant } from '#ca'
import type { Config } from './config.ts'
import { EndingDevices } from './devices/ending.ts'
import { cutRevoked, type RevocationRoom } from './devices/revoke.ts'
import { now, type Foundation } from './foundation.ts'
import { SqliteFollowedStore } from './store/sqlite/devices.ts'

/** Undefined where nobody shares the devices. */
export function openEndings(
  { tenant }: Config,
  { caStore, caLog, thread, stores }: Foundation,
  open: () => Pick<RevocationRoom, 'registry' | 'live' | 'reauthorization' | 'report'>,
): EndingDevices | undefined {
  if (stores.sharedDevices === undefined) return undefined
  return new EndingDevices({
    devices: stores.sharedDevices,
    own: new SqliteFollowedStore(thread),
    tenant,
    store: caStore,
    log: caLog,
    now,
    certified: async () => await caStore.certifiedDevices(tenant, instant(now())),
    cut(row) {
      const room = open()
      cutRevoked(room, row, { by: 'gateway', at: performance.now() }).catch((error: unknown) =>
        room.report(error, 'what stood on certificates that ended elsewhere could not be cut'),
      )
    },
  })
}
