/** The tunnel's bench moves real bytes: what the load generator writes is what the target gets, octet by octet. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { openLines } from '../../bench/tunnel/cell.ts'
import type { Load } from '../../bench/tunnel/load.ts'
import { pipe } from '../../bench/tunnel/peers/pipe.ts'
import { Remote } from '../../bench/tunnel/rpc.ts'
import { sallyport } from '../../bench/tunnel/sallyport.ts'
import type { Target } from '../../bench/tunnel/target.ts'
import { until } from '../support/node.ts'
import { selfSigned } from '../transport/certificate.ts'

const program = (name: string) => resolve(import.meta.dirname, '../../bench/tunnel', name)
const BYTES = 4 * 1024 * 1024
const LINES = 3

test.for([sallyport, pipe])(
  'through $name every line arrives whole, and small requests come back',
  { timeout: 180_000 },
  async (peer) => {
    const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
    try {
      await using load = new Remote<Load>(program('load.ts'))
      await using target = new Remote<Target>(program('target.ts'))
      await target.call('look', undefined)
      await using path = await peer.start({
        directory,
        target: await target.call('listen', 0),
        certificate: await selfSigned(),
        lines: LINES,
        uplink: (port) => Promise.resolve(port),
      })
      const running = { name: peer.name, number: 1, path }
      await openLines({ load, target }, running, LINES)
      await load.call('pump', { path: 1, count: LINES, size: 64 * 1024, bytes: BYTES })
      const seen = await until('all octets at the target', async () => {
        const lines = await target.call('seen', 1)
        return lines.every(({ received }) => received >= BYTES) ? lines : undefined
      })
      expect(seen).toEqual(Array.from({ length: LINES }, () => ({ received: BYTES, intact: true })))
      const { entry } = path
      await load.call('open', { path: 1, entry, purpose: 'echo', count: LINES })
      const times = await load.call('ping', { path: 1, ms: 20, gap: 0, size: 64 })
      expect(times.length).toBeGreaterThan(0)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  },
)
