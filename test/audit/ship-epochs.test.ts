/** A sink over a rotation: what it had not got of the old epoch comes, and once it has that, it is not asked for again. */
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import {
  cursorOf,
  openNodeLog,
  reconcile,
  rotateNodeLog,
  shipEpochs,
  shipSyslog,
  type NodeLog,
  type NodeLogOptions,
  type Shipper,
} from '#audit'
import { epochKeys } from '../../gateway/epochs.ts'
import { eventually, stats, temporary } from './fixture.ts'
import { makeCertificates, Receiver, type Certificates } from './receiver.ts'

const stem = 'sallyport.test/audit/n1'
let certificates: Certificates
beforeAll(async () => {
  certificates = await makeCertificates()
})

async function receiving(): Promise<Receiver> {
  const receiver = new Receiver(certificates)
  await receiver.start()
  onTestFinished(() => receiver.kill())
  return receiver
}

/** Two epochs, of which the first was never shipped. */
async function rotated(): Promise<NodeLogOptions> {
  const folder = temporary()
  mkdirSync(join(folder, 'keys'))
  const options = {
    directory: join(folder, 'log'),
    stem,
    keys: epochKeys(join(folder, 'keys')),
    clock: { now: () => Date.now() },
    random: (n: number) => randomBytes(n),
  }
  const { log } = await openNodeLog(options)
  await Promise.all(Array.from({ length: 20 }, (_, i) => log.append(stats(i))))
  await log.close()
  const { log: next } = await rotateNodeLog(options)
  await next.close()
  return options
}

/** The sink `siem`; `believed`: what was sent counts at once as had, so that no row waits for a minute. */
function ship({ log, ended }: NodeLog, port: number, begun: string[], believed = true): Shipper {
  const options = {
    host: '127.0.0.1',
    port,
    ca: certificates.ca,
    ...certificates.client,
    servername: 'siem.test',
    enterpriseNumber: 32_473,
    name: 'siem',
    backoffMs: 5,
    ...(believed ? { trailBytes: 0, trailMs: 0 } : {}),
  }
  const shipper = shipEpochs(log, ended, 'siem', (one, over) => {
    begun.push(`${one.origin} ${over ? 'ended' : 'goes on'}`)
    return shipSyslog(one, options)
  })
  onTestFinished(() => shipper.close())
  return shipper
}

const lines = (receiver: Receiver): Uint8Array[] => receiver.events().map(({ body }) => body)
const cursor = (directory: string): number | null => cursorOf(join(directory, 'ship', 'siem.cur'))

test('a new sink gets every epoch whole, and each export is complete', async () => {
  const receiver = await receiving()
  const node = await openNodeLog(await rotated())
  onTestFinished(() => node.log.close())
  const begun: string[] = []
  const shipper = ship(node, receiver.port, begun)
  expect(begun.toSorted()).toEqual([`${stem}/1 ended`, `${stem}/2 goes on`])
  expect(shipper.health()).toMatchObject({ name: 'siem', state: 'DOWN', sent: 0 })
  const [first] = node.ended
  if (first === undefined) throw new Error('one epoch has ended')
  const all = first.last.size + node.log.size
  expect(shipper.lag()).toEqual({ events: all })
  expect(await shipper.flush(60_000)).toBe(true)
  expect(shipper.lag()).toEqual({ events: 0 })
  await eventually(() => receiver.events().length >= all)
  expect(shipper.health()).toMatchObject({ state: 'OK', sent: all, lastError: null })
  for (const { directory, origin, vkeys } of [
    first,
    { directory: node.log.directory, origin: node.log.origin, vkeys: node.log.vkeys },
  ])
    expect(
      await reconcile({ directory, vkeys, lines: lines(receiver) }),
      `${origin} beside the other`,
    ).toMatchObject({ outcome: 'complete', missing: [], mismatches: [] })
  await eventually(() => cursor(first.directory) === first.last.size)
})

test('a sink that had some of the old epoch gets the rest, and once it has all of it only the new one', async () => {
  const receiver = await receiving()
  const options = await rotated()
  const before = await openNodeLog(options)
  onTestFinished(() => before.log.close())
  const [first] = before.ended
  if (first === undefined) throw new Error('one epoch has ended')
  // Sent, and not yet believed: as a gateway that is stopped within a minute leaves it.
  const sent = ship(before, receiver.port, [], false)
  expect(await sent.flush(60_000)).toBe(true)
  await sent.close()
  expect(cursor(first.directory) ?? 0).toBe(0)
  const begun: string[] = []
  const again = ship(before, receiver.port, begun)
  expect(begun).toHaveLength(2)
  await eventually(() => cursor(first.directory) === first.last.size)
  await again.close()
  begun.length = 0
  const after = ship(before, receiver.port, begun)
  expect(begun).toEqual([`${stem}/2 goes on`])
  await after.close()
})
