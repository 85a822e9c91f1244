/** A sink over a rotation: what it had not got of the old epoch comes, and once it has that, it is not asked for again. */
import { randomBytes } from 'node:crypto'
import { cpSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import {
  cursorOf,
  elastic,
  openEpoched,
  openNodeLog,
  reconcile,
  rotateNodeLog,
  shipEpochs,
  shipHttps,
  shipSyslog,
  type EndedEpoch,
  type NodeLog,
  type NodeLogOptions,
  type Shipper,
  type SyslogOptions,
} from '#audit'
import { epochKeys } from '../../gateway/epochs.ts'
import { bulk, Fake } from './fakes.ts'
import { eventually, shared, stats, temporary } from './fixture.ts'
import { makeCertificates, Receiver, type Certificates } from './receiver.ts'

interface Rejection {
  readonly metadata: { readonly event_code: string }
  readonly unmapped: { readonly sallyport: unknown }
}

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

function optionsOf(folder: string): NodeLogOptions {
  return {
    directory: join(folder, 'log'),
    stem,
    keys: epochKeys(join(folder, 'keys')),
    clock: { now: () => Date.now() },
    random: (n: number) => randomBytes(n),
    // No event but those of the row, however long it takes.
    limits: { heartbeatMs: 3_600_000 },
  }
}

/** The last event of the first epoch before its end is one that a receiver may refuse. */
const poison = 21
let made: string
beforeAll(async () => {
  made = shared()
  mkdirSync(join(made, 'keys'))
  const options = optionsOf(made)
  const { log } = await openNodeLog(options)
  await Promise.all(Array.from({ length: 20 }, (_, i) => log.append(stats(i))))
  await log.append(stats(1, 'a poison pill'))
  await log.close()
  const { log: next } = await rotateNodeLog(options)
  await next.close()
})

/** Two epochs, of which the first was never shipped. */
function rotated(): NodeLogOptions {
  const folder = temporary()
  cpSync(made, folder, { recursive: true })
  return optionsOf(folder)
}

/** The sink `siem`. An epoch that ended is closed behind at once, unless a row says otherwise. */
function ship(
  { log, ended }: Pick<NodeLog, 'log' | 'ended'>,
  port: number,
  begun: string[],
  more: Partial<SyslogOptions> = { trailMs: 0 },
): Shipper {
  const options = {
    host: '127.0.0.1',
    port,
    ca: certificates.ca,
    ...certificates.client,
    servername: 'siem.test',
    enterpriseNumber: 32_473,
    name: 'siem',
    backoffMs: 5,
    ...more,
  }
  const shipper = shipEpochs(log, ended, 'siem', (one) => {
    begun.push(`${one.origin} ${one.taken === undefined ? 'goes on' : 'ended'}`)
    return shipSyslog(one, options)
  })
  onTestFinished(() => shipper.close())
  return shipper
}

const lines = (receiver: Receiver): Uint8Array[] => receiver.events().map(({ body }) => body)
/** The longest that a timer takes. */
const unlimited = 2 ** 31 - 1
const cursor = (directory: string): number | null => cursorOf(join(directory, 'ship', 'siem.cur'))

test('a new sink gets every epoch whole, and each export is complete', async () => {
  const receiver = await receiving()
  const node = await openNodeLog(rotated())
  onTestFinished(() => node.log.close())
  const begun: string[] = []
  const shipper = ship(node, receiver.port, begun)
  expect(begun.toSorted()).toEqual([`${stem}/1 ended`, `${stem}/2 goes on`])
  expect(shipper.health()).toMatchObject({ name: 'siem', state: 'DOWN', sent: 0 })
  const [first] = node.ended
  if (first === undefined) throw new Error('one epoch has ended')
  const size = first.last.size + node.log.size
  expect(shipper.lag()).toEqual({ events: size })
  expect(shipper.health().owed).toBe(first.last.size)
  expect(await shipper.flush(unlimited)).toBe(true)
  expect(shipper.lag()).toEqual({ events: 0 })
  await eventually(() => receiver.events().length >= size)
  expect(shipper.health()).toMatchObject({ state: 'OK', sent: size, lastError: null })
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
  const options = rotated()
  const before = await openNodeLog(options)
  onTestFinished(() => before.log.close())
  const [first] = before.ended
  if (first === undefined) throw new Error('one epoch has ended')
  // Sent, and not yet believed: as a gateway that is stopped within a minute leaves it.
  const sent = ship(before, receiver.port, [], {})
  expect(await sent.flush(unlimited)).toBe(true)
  expect(sent.lag()).toEqual({ events: 0 })
  expect(sent.health(), 'handed over is not had').toMatchObject({ owed: first.last.size })
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

/** Both epochs, opened, and the one that ended. */
async function opened(): Promise<{ node: NodeLog; first: EndedEpoch }> {
  const node = await openNodeLog(rotated())
  onTestFinished(() => node.log.close())
  const [first] = node.ended
  if (first === undefined) throw new Error('one epoch has ended')
  return { node, first }
}

test('what lies unread at the receiver when it dies is owed, and comes again', async () => {
  const receiver = await receiving()
  receiver.deaf = true
  const { node, first } = await opened()
  const shipper = ship(node, receiver.port, [])
  expect(await shipper.flush(unlimited)).toBe(true)
  expect(shipper.lag(), 'all of it is in buffers').toEqual({ events: 0 })
  await receiver.kill()
  await eventually(() => shipper.health().lastError !== null)
  expect(shipper.health()).toMatchObject({ state: 'DOWN', owed: first.last.size })
  expect(cursor(first.directory) ?? 0).toBe(0)
  receiver.deaf = false
  await receiver.start()
  await eventually(() => shipper.health().owed === 0)
  expect(
    await reconcile({
      directory: first.directory,
      vkeys: first.vkeys,
      lines: lines(receiver),
    }),
  ).toMatchObject({ outcome: 'complete', missing: [] })
})

test('an epoch that was taken is asked for no more, and its connection is closed', async () => {
  const receiver = await receiving()
  const { node, first } = await opened()
  const shipper = ship(node, receiver.port, [])
  await eventually(() => shipper.health().owed === 0)
  expect(cursor(first.directory)).toBe(first.last.size)
  expect(await shipper.flush(unlimited)).toBe(true)
  await eventually(() => receiver.connections === 1)
  const had = receiver.events().length
  const { connects } = shipper.health()
  await receiver.kill()
  await eventually(() => shipper.health().state === 'DOWN')
  await receiver.start()
  await eventually(() => shipper.health().state === 'OK')
  expect(shipper.health().connects).toBe(connects + 1)
  await node.log.append(stats(1))
  expect(await shipper.flush(unlimited)).toBe(true)
  const names = (): string[] =>
    receiver
      .events()
      .slice(had)
      .map(({ elements }) => elements['sallyport@32473'])
      .map((fields) => `${fields?.['origin']}#${fields?.['idx']}`)
  await eventually(() => names().includes(`${node.log.origin}#${node.log.size - 1}`))
  expect(names().filter((name) => name.startsWith(`${first.origin}#`))).toEqual([])
})

test('a receiver that closes what is idle sooner than the sink would is not sent the epoch for ever', async () => {
  const receiver = await receiving()
  const { node, first } = await opened()
  let cuts = 0
  receiver.onMessage = () => {
    const last = receiver.messages.at(-1)?.elements['sallyport@32473']
    if (last?.['origin'] !== first.origin || last['idx'] !== `${first.last.size - 1}`) return
    // The time to stand is ten minutes, and halved by each.
    if (++cuts <= 10) receiver.hangUp()
  }
  const shipper = ship(node, receiver.port, [], { trailMs: 600_000 })
  await eventually(() => shipper.health().owed === 0)
  expect(cuts).toBeGreaterThan(1)
  expect(cursor(first.directory)).toBe(first.last.size)
})

test('an event of the old epoch that a receiver will never take is named in the new one with its origin', async () => {
  const receiver = new Fake(certificates, bulk)
  await receiver.start()
  onTestFinished(() => receiver.kill())
  const options = rotated()
  const node = await openNodeLog(options)
  onTestFinished(() => node.log.close())
  const shipper = shipEpochs(node.log, node.ended, 'siem', (one) =>
    shipHttps(one, {
      name: 'siem',
      host: '127.0.0.1',
      port: receiver.port,
      ca: certificates.ca,
      servername: 'siem.test',
      kind: elastic({ authorization: 'ApiKey abc', index: 'logs-sallyport' }),
      backoffMs: 5,
    }),
  )
  onTestFinished(() => shipper.close())
  await eventually(() => shipper.health().owed === 0)
  const bodies = (await node.log.read(0, 1_000)).map(
    ({ body }) => JSON.parse(Buffer.from(body).toString()) as Rejection,
  )
  const told = bodies.filter(({ metadata }) => metadata.event_code === 'sink.rejected')
  expect(told.map(({ unmapped }) => unmapped.sallyport)).toMatchObject([
    { sink: 'siem', idx: poison, detail: { count: 1, origin: `${stem}/1` } },
  ])
})

test('a sink over a rotation of a running log gets the rest of the old epoch and all of the new, and is one sink', async () => {
  const receiver = await receiving()
  const folder = temporary()
  mkdirSync(join(folder, 'keys'))
  const log = await openEpoched(optionsOf(folder))
  onTestFinished(() => log.close())
  const begun: string[] = []
  const shipper = ship({ log, ended: log.ended }, receiver.port, begun)
  await Promise.all(Array.from({ length: 20 }, (_, i) => log.append(stats(i))))
  expect(await shipper.flush(unlimited)).toBe(true)
  const rotation = log.rotate()
  const behind = Array.from({ length: 20 }, (_, i) => log.append(stats(i)))
  const { ended } = await rotation
  await Promise.all(behind)
  await eventually(() => cursor(ended.directory) === ended.last.size)
  expect(begun).toEqual([`${stem}/1 goes on`, `${stem}/2 goes on`, `${stem}/1 ended`])
  expect(await shipper.flush(unlimited)).toBe(true)
  const had = (): number =>
    new Set(lines(receiver).map((line) => Buffer.from(line).toString())).size
  await eventually(() => had() >= ended.last.size + log.signed.size)
  expect(shipper.health()).toMatchObject({ name: 'siem', owed: 0, state: 'OK', lastError: null })
  for (const { directory, origin, vkeys } of [ended, log])
    expect(await reconcile({ directory, vkeys, lines: lines(receiver) }), origin).toMatchObject({
      outcome: 'complete',
      missing: [],
      mismatches: [],
    })
})
