import fc from 'fast-check'
import { existsSync, mkdirSync, readFileSync, renameSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import {
  elastic,
  otlp,
  reconcile,
  shipHttps,
  splunk,
  webhook,
  type AuditLog,
  type HttpsOptions,
  type Kind,
  type Shipper,
} from '#audit'
import { formatCef } from '../../audit/format/cef.ts'
import {
  channel,
  collector,
  bulk,
  Fake,
  hec,
  hook,
  secret,
  token,
  type Asked,
  type Reply,
} from './fakes.ts'
import { eventually, open, stats, temporary } from './fixture.ts'
import { makeCertificates, type Certificates } from './receiver.ts'

/** How long a machine with much else to do may take; nothing is measured by it. */
const patience = 60_000
vi.setConfig({ testTimeout: 2 * patience })

let certificates: Certificates
beforeAll(async () => {
  certificates = await makeCertificates()
})

async function fake(rules: (asked: Asked, fake: Fake) => Reply): Promise<Fake> {
  const one = new Fake(certificates, rules)
  await one.start()
  onTestFinished(() => one.kill())
  return one
}

function ship(
  log: AuditLog,
  { port }: Fake,
  kind: Kind,
  more: Partial<HttpsOptions> = {},
): Shipper {
  const shipper = shipHttps(log, {
    name: 'siem',
    host: '127.0.0.1',
    port,
    ca: certificates.ca,
    servername: 'siem.test',
    kind,
    backoffMs: 5,
    ...more,
  })
  onTestFinished(() => shipper.close())
  return shipper
}

const write = (log: AuditLog, n: number, tag = ''): Promise<unknown> =>
  Promise.all(Array.from({ length: n }, (_, i) => log.append(stats(i, `${tag} event ${i}`))))

const withAck = { token, channel }
const rows: {
  name: string
  kind: Kind
  rules: (asked: Asked, fake: Fake) => Reply
  more?: Partial<HttpsOptions>
}[] = [
  {
    name: 'Splunk with acknowledgement',
    kind: splunk(withAck),
    rules: hec(true),
    more: { ack: withAck },
  },
  { name: 'Splunk without', kind: splunk({ token }), rules: hec(false), more: { trailMs: 0 } },
  {
    name: 'Elastic',
    kind: elastic({ authorization: 'ApiKey abc', index: 'logs-sallyport' }),
    rules: bulk,
  },
  { name: 'a webhook', kind: webhook({ path: '/in', secret }), rules: hook },
  { name: 'OTLP', kind: otlp({}), rules: collector },
]

/** Every covered event is at the receiver, byte for byte; and what it has reconciles with the log. */
async function expectAll(
  log: AuditLog,
  receiver: Fake,
  but: readonly number[] = [],
): Promise<void> {
  const entries = (await log.read(0, 10_000)).filter(
    ({ idx }) => idx < log.signed.size && !but.includes(idx),
  )
  const missing = entries.filter(
    ({ uid, body }) => receiver.taken.get(uid) !== Buffer.from(body).toString(),
  )
  expect(missing.map(({ idx }) => idx)).toEqual([])
  const lines = [...receiver.taken.values()].map((body) =>
    Buffer.from(JSON.stringify({ _raw: body })),
  )
  const found = await reconcile({
    directory: log.directory,
    vkeys: log.vkeys,
    lines,
    to: log.signed.size,
  })
  const lost = found.missing.flatMap(({ from, to }) =>
    Array.from({ length: to - from + 1 }, (_, i) => from + i),
  )
  expect(lost.filter((idx) => !but.includes(idx))).toEqual([])
  expect(found.mismatches).toEqual([])
}

describe.each(rows)('$name', ({ kind, rules, more }) => {
  test('has every event byte for byte, and the heads that prove them', async () => {
    const receiver = await fake(rules)
    const log = await open()
    await write(log, 300)
    const shipper = ship(log, receiver, kind, more)
    expect(await shipper.flush(patience)).toBe(true)
    await expectAll(log, receiver)
    expect(
      [...receiver.taken.keys()].filter((uid) => uid.startsWith('cp-')).length,
    ).toBeGreaterThan(0)
    expect(shipper.health()).toMatchObject({ state: 'OK', lastError: null })
    if (kind.acknowledges) expect(shipper.health().cursor).toBe(shipper.health().next)
  })

  test(
    'that fails, resets, stalls and is killed under load loses nothing',
    { timeout: 2 * patience },
    async () => {
      const receiver = await fake(rules)
      receiver.fault = (_asked, count) =>
        count % 5 === 2
          ? 'reset'
          : count % 5 === 3
            ? { status: 503 }
            : count % 7 === 4
              ? { status: 429, headers: { 'retry-after': '0' } }
              : null
      const log = await open()
      const shipper = ship(log, receiver, kind, { ...more, batchEvents: 60 })
      for (let round = 0; round < 3; round++) {
        await write(log, 200, `round ${round}`)
        await receiver.kill()
        await write(log, 50, `while it was down ${round}`)
        await receiver.start()
      }
      expect(await shipper.flush(patience)).toBe(true)
      await expectAll(log, receiver)
    },
  )

  test('that will never take an event leaves it in the dead-letter file and in the log', async () => {
    const receiver = await fake(rules)
    const log = await open()
    await write(log, 20)
    const { idx, uid, leaf } = await log.append(stats(1, 'a poison pill'))
    await write(log, 20)
    const shipper = ship(log, receiver, kind, more)
    expect(await shipper.flush(patience)).toBe(true)
    // What was told of it in the log is shipped as well.
    await eventually(() => shipper.health().next === log.size)
    await expectAll(log, receiver, [idx])
    const dead = readFileSync(join(log.directory, 'ship', 'siem.dead'), 'utf8')
      .trim()
      .split('\n')
    expect(dead.map((line) => JSON.parse(line) as unknown)).toMatchObject([{ idx, uid, leaf }])
    const told = (await log.read(0, 10_000)).map(({ body }) => Buffer.from(body).toString())
    expect(told.filter((body) => body.includes('"event_code":"sink.rejected"')).length).toBe(1)
  })

  test('goes on where its cursor stands after a restart of the gateway', async () => {
    const receiver = await fake(rules)
    const log = await open()
    await write(log, 50)
    const first = ship(log, receiver, kind, more)
    expect(await first.flush(patience)).toBe(true)
    await first.close()
    const before = receiver.taken.size
    await write(log, 10)
    const second = ship(log, receiver, kind, more)
    expect(await second.flush(patience)).toBe(true)
    expect(receiver.taken.size).toBeGreaterThan(before)
    await expectAll(log, receiver)
    if (kind.acknowledges) expect(Math.max(...receiver.times.values())).toBe(1)
  })
})

describe('a receiver that wants something else of us', () => {
  test.for([
    { name: 'Splunk, another token', kind: splunk({ token: 'wrong' }), rules: hec(false) },
    {
      name: 'Splunk, no channel where one is needed',
      kind: splunk({ token, channel: 'other' }),
      rules: hec(false),
    },
    {
      name: 'Elastic, another key',
      kind: elastic({ authorization: 'ApiKey x', index: 'logs-sallyport' }),
      rules: bulk,
    },
    {
      name: 'Elastic, another index',
      kind: elastic({ authorization: 'ApiKey abc', index: 'nowhere' }),
      rules: bulk,
    },
    {
      name: 'a webhook, another secret',
      kind: webhook({ path: '/in', secret: 'other' }),
      rules: hook,
    },
  ])('$name: DOWN, nothing lost, nothing dead', async ({ kind, rules }) => {
    const receiver = await fake(rules)
    const log = await open()
    await write(log, 5)
    const shipper = ship(log, receiver, kind)
    await eventually(() => shipper.health().lastError !== null)
    expect(shipper.health()).toMatchObject({ state: 'DOWN', next: 0, cursor: 0 })
    expect(existsSync(join(log.directory, 'ship', 'siem.dead'))).toBe(false)
  })
})

describe('a misconfigured receiver makes the sink lose nothing', () => {
  const hecSays = (code: number, text: string) => ({
    kind: splunk({ token }),
    rules: hec(false),
    answer: () => ({ status: 400, body: { text, code, 'invalid-event-number': 0 } }),
  })
  const elasticSays = (status: number, type: string) => ({
    kind: elastic({ authorization: 'ApiKey abc', index: 'logs-sallyport' }),
    rules: bulk,
    answer: ({ body }: Asked) => ({
      status: 200,
      body: {
        errors: true,
        items: Array.from({ length: body.toString().split('\n').length >> 1 }, () => ({
          create: { status, error: { type } },
        })),
      },
    }),
  })
  test.for([
    { name: 'Splunk 1, token disabled', ...hecSays(1, 'Token disabled') },
    { name: 'Splunk 3, invalid authorization', ...hecSays(3, 'Invalid authorization') },
    { name: 'Splunk 7, incorrect index', ...hecSays(7, 'Incorrect index') },
    { name: 'Splunk 10, no channel', ...hecSays(10, 'Data channel is missing') },
    { name: 'Splunk 6 for every event', ...hecSays(6, 'Invalid data format') },
    { name: 'Elastic 403 for each item', ...elasticSays(403, 'security_exception') },
    { name: 'Elastic 404 for each item', ...elasticSays(404, 'index_not_found_exception') },
    { name: 'Elastic 400 for each item', ...elasticSays(400, 'illegal_argument_exception') },
    {
      name: 'a webhook that finds fault with everything',
      kind: webhook({ path: '/in', secret }),
      rules: hook,
      answer: () => ({ status: 422 }),
    },
    {
      name: 'a collector that rejects all records',
      kind: otlp({}),
      rules: collector,
      answer: () => ({ status: 200, body: { partialSuccess: { rejectedLogRecords: '9999' } } }),
    },
  ])('$name: DOWN with the reason, and all of it there when it is mended', async (row) => {
    const receiver = await fake(row.rules)
    receiver.fault = row.answer
    const log = await open()
    await write(log, 12)
    const shipper = ship(log, receiver, row.kind, { trailMs: 0 })
    await eventually(() => receiver.count > 3 && shipper.health().lastError !== null)
    expect(shipper.health()).toMatchObject({ state: 'DOWN', next: 0, cursor: 0 })
    expect(shipper.health().lastError).toMatch(/\d{3}|rejected/)
    expect(existsSync(join(log.directory, 'ship', 'siem.dead'))).toBe(false)
    receiver.fault = () => null
    expect(await shipper.flush(patience)).toBe(true)
    await expectAll(log, receiver)
    const told = (await log.read(0, 10_000)).map(({ body }) => Buffer.from(body).toString())
    expect(told.some((body) => body.includes('"event_code":"sink.rejected"'))).toBe(false)
  })
})

test('a rejected sink.rejected is told of in the file and not in the log again', async () => {
  const receiver = await fake(hook)
  receiver.fault = ({ body }) =>
    /poison|"event_code\\":\\"sink\.rejected/.test(gunzipSync(body).toString())
      ? { status: 422 }
      : null
  const log = await open()
  await write(log, 3)
  await log.append(stats(1, 'a poison pill'))
  const shipper = ship(log, receiver, webhook({ path: '/in', secret }))
  expect(await shipper.flush(patience)).toBe(true)
  await write(log, 3)
  expect(await shipper.flush(patience)).toBe(true)
  const dead = readFileSync(join(log.directory, 'ship', 'siem.dead'), 'utf8')
    .trim()
    .split('\n')
  expect(dead.length).toBe(2)
  const told = (await log.read(0, 10_000)).map(({ body }) => Buffer.from(body).toString())
  expect(told.filter((body) => body.includes('"event_code":"sink.rejected"')).length).toBe(1)
})

test('a batch too large for the receiver goes in halves', async () => {
  const receiver = await fake(hook)
  receiver.fault = ({ body }) => (body.length > 6_000 ? { status: 413 } : null)
  const log = await open()
  await write(log, 100)
  const shipper = ship(log, receiver, webhook({ path: '/in', secret }))
  expect(await shipper.flush(patience)).toBe(true)
  await expectAll(log, receiver)
  expect(existsSync(join(log.directory, 'ship', 'siem.dead'))).toBe(false)
})

test('where 200 is no acknowledgement, a failure begins again at the cursor, and what was lost comes anew', async () => {
  const receiver = await fake(hec(false))
  const log = await open()
  await write(log, 60)
  const shipper = ship(log, receiver, splunk({ token }), { trailMs: 60_000 })
  expect(await shipper.flush(patience)).toBe(true)
  // The receiver said 200 and lost it all.
  receiver.taken.clear()
  receiver.fault = (_asked, count) => (count % 2 === 0 ? 'reset' : null)
  await write(log, 10)
  receiver.count = 1
  expect(await shipper.flush(patience)).toBe(true)
  receiver.fault = () => null
  await eventually(() => shipper.health().rewinds > 0)
  expect(await shipper.flush(patience)).toBe(true)
  await expectAll(log, receiver)
})

test('a log whose own files cannot be read is the sink’s to say, and ends nothing', async () => {
  const receiver = await fake(hook)
  // Nobody is to look at the segment while it is away.
  const log = await open(temporary(), { limits: { watchMs: 3_600_000 } })
  await write(log, 20)
  await log.checkpoint()
  const segment = join(log.directory, 'seg', '00000000000000000000.aud')
  renameSync(segment, `${segment}.away`)
  mkdirSync(segment)
  const shipper = ship(log, receiver, webhook({ path: '/in', secret }))
  await eventually(() => shipper.health().lastError?.includes('EISDIR') === true)
  expect(shipper.health().state).toBe('DOWN')
  rmdirSync(segment)
  renameSync(`${segment}.away`, segment)
  expect(await shipper.flush(patience)).toBe(true)
  await expectAll(log, receiver)
  expect(shipper.health().lastError).toBeNull()
})

test('what partialSuccess rejects is never sent again', async () => {
  const receiver = await fake(collector)
  receiver.fault = (_asked, count) =>
    count === 1
      ? {
          status: 200,
          body: { partialSuccess: { rejectedLogRecords: '1', errorMessage: 'too old' } },
        }
      : null
  const log = await open()
  await write(log, 5)
  const shipper = ship(log, receiver, otlp({}))
  expect(await shipper.flush(patience)).toBe(true)
  const dead = readFileSync(join(log.directory, 'ship', 'siem.dead'), 'utf8')
    .trim()
    .split('\n')
  const again = dead.map((line) => (JSON.parse(line) as { uid: string }).uid)
  expect(again.length).toBeGreaterThan(0)
  expect(again.filter((uid) => receiver.taken.has(uid))).toEqual([])
})

test('a receiver that never answers holds up no other sink', async () => {
  const stuck = await fake(hook)
  const well = await fake(collector)
  const log = await open()
  stuck.fault = () => 'reset'
  const slow = ship(log, stuck, webhook({ path: '/in', secret }), { name: 'slow' })
  const quick = ship(log, well, otlp({}), { name: 'quick' })
  await write(log, 200)
  expect(await quick.flush(patience)).toBe(true)
  await expectAll(log, well)
  await eventually(() => slow.health().state === 'DOWN')
  expect(slow.lag().events).toBeGreaterThan(200)
})

test('a CEF line is one line, and its fields read back as they were', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }), (said) => {
      const body = {
        severity_id: 4,
        time: 1,
        message: said,
        metadata: { event_code: 'session.deny', sequence: 9 },
        unmapped: { sallyport: { reason: said } },
      }
      const line = formatCef(Buffer.from(JSON.stringify(body)), {
        origin: 'o.test/audit/n/1',
        leaf: 'ab',
        cp: null,
      })
      expect(line).not.toMatch(/[\r\n]/)
      const parts = line.split(/(?<!\\)(?:\\\\)*\|/)
      expect(line.startsWith('CEF:0|Sallyport|Gateway|')).toBe(true)
      expect(parts.length).toBeGreaterThanOrEqual(8)
      const reason = / reason=((?:[^\\=]|\\.)*?) msg=/.exec(line)?.[1] ?? ''
      const read = reason.replace(/\\(.)/g, (_, one: string) => ({ n: '\n', r: '\r' })[one] ?? one)
      expect(Buffer.from(read).toString()).toBe(Buffer.from(said).toString())
      expect(line).toContain(' cn1=9 cn1Label=idx cs4=ab cs4Label=leaf cs6=o.test/audit/n/1')
    }),
  )
})
