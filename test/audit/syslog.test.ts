import fc from 'fast-check'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, watch, writeFileSync } from 'node:fs'
import { connect } from 'node:tls'
import { join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import {
  parseCheckpoint,
  parseFrames,
  parseMessage,
  reconcile,
  shipSyslog,
  type Shipper,
  type SyslogOptions,
} from '#audit'
import type { ShippedLog } from '../../audit/contract.ts'
import { formatMessage, frameMessage } from '../../audit/format/rfc5424.ts'
import { Cursor, decodeSlots, encodeSlot } from '../../audit/ship/cursor.ts'
import { leafHash, rootOf } from '../../audit/tree.ts'
import { freePort } from '../support/port.ts'
import { eventually, open, origin, start, stats, temporary } from './fixture.ts'
import { makeCertificates, Receiver, type Certificates } from './receiver.ts'

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

function ship(log: ShippedLog, port: number, more: Partial<SyslogOptions> = {}): Shipper {
  const shipper = shipSyslog(log, {
    host: '127.0.0.1',
    port,
    ca: certificates.ca,
    ...certificates.client,
    servername: 'siem.test',
    enterpriseNumber: 32_473,
    name: 'siem',
    backoffMs: 5,
    ...more,
  })
  onTestFinished(() => shipper.close())
  return shipper
}

const received = (receiver: Receiver, holds: () => boolean): Promise<void> =>
  new Promise((resolve) => {
    const look = (): void => {
      if (holds()) resolve()
    }
    receiver.onMessage = look
    look()
  })
const element = 'sallyport@32473'

test('a receiver that is to have CEF gets CEF over TLS, and its export has every event', async () => {
  const receiver = await receiving()
  const log = await open()
  await Promise.all(Array.from({ length: 5 }, (_, i) => log.append(stats(i, `event ${i}`))))
  const shipper = ship(log, receiver.port, { format: 'cef' })
  expect(await shipper.flush(60_000)).toBe(true)
  await received(receiver, () => receiver.indexes.size >= log.signed.size)
  const said = receiver.events().map(({ body }) => Buffer.from(body).toString())
  for (const line of said)
    expect(line).toMatch(/^CEF:0\|Sallyport\|Gateway\|.* cn1=\d+ cn1Label=idx /)
  const found = await reconcile({
    directory: log.directory,
    vkeys: log.vkeys,
    lines: said.map((line) => Buffer.from(line)),
    to: log.signed.size,
  })
  expect(found).toMatchObject({ missing: [], mismatches: [] })
})

describe('a message', () => {
  const message = {
    severity: 3,
    time: 1_800_000_000_123,
    host: 'n1',
    app: 'sallyport',
    id: 'auth.login',
    elementId: element,
    elements: { origin, ses: 'a"b\\c]d', grant: undefined },
    body: Buffer.from('{"ü":1}'),
  }
  test('is these bytes', () => {
    expect(Buffer.from(frameMessage(formatMessage(message))).toString()).toBe(
      '136 <108>1 2027-01-15T08:00:00.123Z n1 sallyport - auth.login [sallyport@32473 origin="sallyport.test/audit/n1/1" ses="a\\"b\\\\c\\]d"] {"ü":1}',
    )
  })
  test.for([1, 2, 3, 4, 5, 6].map((severity) => ({ severity, pri: 111 - severity })))(
    'of severity $severity has priority $pri',
    ({ severity, pri }) => {
      expect(parseMessage(formatMessage({ ...message, severity })).priority).toBe(pri)
    },
  )
  test('parses to what was formatted, whatever the values', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        fc.string({ unit: 'grapheme' }),
        fc.uint8Array(),
        (a, b, body) => {
          const values = { a: a.toWellFormed(), b }
          const parsed = parseMessage(formatMessage({ ...message, elements: values, body }))
          expect(parsed.elements[element]).toEqual(values)
          expect(Buffer.from(parsed.body).equals(body)).toBe(true)
        },
      ),
    )
  })
  test('frames come out of any chunks as they went in', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 50 })),
        fc.integer({ min: 1, max: 20 }),
        (bodies, step) => {
          const stream = Buffer.concat(bodies.map(frameMessage))
          const out: Uint8Array[] = []
          let held = Buffer.alloc(0)
          for (let at = 0; at < stream.length; at += step) {
            const { frames, rest } = parseFrames(
              Buffer.concat([held, stream.subarray(at, at + step)]),
            )
            out.push(...frames)
            held = Buffer.from(rest)
          }
          expect(held.length).toBe(0)
          expect(out.map((frame) => Buffer.from(frame).toString('hex'))).toEqual(
            bodies.map((body) => Buffer.from(body).toString('hex')),
          )
        },
      ),
    )
  })
  test.for(['<13>1 no count', '0 ', '012 x', '999999999 x', '70000 x', '-5 x'])(
    'a frame that begins "%s" is refused',
    (text) => {
      expect(() => parseFrames(Buffer.from(text))).toThrow(
        expect.objectContaining({ code: 'frame.length' }),
      )
    },
  )
  test.for([
    '',
    '<13>2 - - - - - -',
    '<13>1 - - - - - [x a="]',
    '<13>1 - h a p m [x a="1"]tail',
    'text',
  ])('"%s" is no message', (text) => {
    expect(() => parseMessage(Buffer.from(text))).toThrow(
      expect.objectContaining({ code: 'frame.syntax' }),
    )
  })
})

describe('the cursor', () => {
  test('survives a torn write of either slot, and never goes back', async () => {
    const path = join(temporary(), 'a.cur')
    const cursor = new Cursor(path, 100)
    expect(cursor.idx).toBe(0)
    await cursor.advance(10)
    await cursor.advance(20)
    await cursor.advance(5)
    cursor.close()
    const bytes = readFileSync(path)
    expect(bytes.length).toBe(128)
    expect(decodeSlots(bytes)).toEqual({ generation: 2, idx: 20 })
    for (let at = 0; at < 64; at++) {
      const torn = Buffer.from(bytes)
      torn[at] = (torn[at] as number) ^ 1
      expect(decodeSlots(torn)?.idx).toBe(at < 64 && bytes.readBigUInt64LE(16) === 20n ? 10 : 20)
    }
    const again = new Cursor(path, 100)
    expect(again.idx).toBe(20)
    again.close()
  })
  test('of another log, or unreadable, says to begin anew', () => {
    const path = join(temporary(), 'a.cur')
    writeFileSync(path, Buffer.concat([encodeSlot({ generation: 1, idx: 500 }), Buffer.alloc(64)]))
    const cursor = new Cursor(path, 100)
    expect(cursor.idx).toBe(0)
    cursor.close()
    expect(decodeSlots(Buffer.alloc(10))).toBeNull()
  })
})

describe('shipping to a receiver', () => {
  test('every event arrives in order, byte for byte, with what proves it', async () => {
    const receiver = await receiving()
    const log = await open()
    const shipper = ship(log, receiver.port)
    await log.append(start)
    for (let n = 0; n < 200; n++) await log.append(stats(n, `"quoted" [and] bracketed \\ ${n} é`))
    expect(await shipper.flush(60_000)).toBe(true)
    const { size } = log.signed
    await received(receiver, () => receiver.indexes.size >= size)
    const stored = await log.read(0, 1_000)
    const events = receiver.events().slice(0, size)
    for (const [i, message] of events.entries()) {
      const fields = message.elements[element]
      expect(fields).toMatchObject({
        origin,
        idx: String(i),
        uid: stored[i]?.uid,
        leaf: stored[i]?.leaf,
        cp: stored[i]?.cp,
      })
      expect(Buffer.from(leafHash(message.body)).toString('hex')).toBe(fields?.['leaf'])
    }
    expect(events.find(({ id }) => id === 'session.start')?.elements[element]).toMatchObject({
      ses: start.session,
      grant: start.grant,
    })
    // The receiver alone can prove that nothing is missing: the leaves it has give the roots that were signed.
    const heads = receiver.messages.filter(({ id }) => id === 'audit.checkpoint')
    const leaves = events.map(({ body }) => leafHash(body))
    expect(heads.length).toBeGreaterThan(0)
    for (const { body } of heads) {
      const { note } = (
        JSON.parse(Buffer.from(body).toString()) as { unmapped: { sallyport: { note: string } } }
      ).unmapped.sallyport
      const head = parseCheckpoint(note)
      expect(Buffer.from(rootOf(leaves.slice(0, head.size))).toString('hex')).toBe(head.root)
    }
    expect(shipper.health()).toMatchObject({ state: 'OK', connects: 1, rewinds: 0, stubs: 0 })
    expect(shipper.lag().events).toBe(log.size - size)
  })
  test('an event too long for a stock receiver goes as a stub that still joins', async () => {
    const receiver = await receiving()
    const log = await open()
    const shipper = ship(log, receiver.port)
    const { idx, uid } = await log.append({ ...start, ticket: 'x'.repeat(9_000) })
    expect(await shipper.flush(60_000)).toBe(true)
    await received(receiver, () => receiver.indexes.has(idx))
    const stub = receiver.events().find(({ elements }) => elements[element]?.['uid'] === uid)
    expect(JSON.parse(Buffer.from(stub?.body ?? []).toString())).toMatchObject({
      class_uid: 4001,
      metadata: { uid, is_truncated: true, sequence: idx },
    })
    expect(Math.max(...receiver.sizes)).toBeLessThanOrEqual(8_000)
    expect(shipper.health().stubs).toBe(1)
  })
  test('killed five times in the middle of a stream, it misses nothing', async () => {
    const receiver = await receiving()
    const log = await open()
    const shipper = ship(log, receiver.port)
    let last = 0
    for (let round = 1; round <= 5; round++) {
      const before = receiver.messages.length
      const appended = await Promise.all(
        Array.from({ length: 800 }, (_, n) => log.append(stats(n, `round ${round}`))),
      )
      last = appended.at(-1)?.idx ?? 0
      await log.checkpoint()
      await received(receiver, () => receiver.messages.length > before + 300)
      await receiver.kill()
      await receiver.start()
    }
    expect(await shipper.flush(60_000)).toBe(true)
    await received(receiver, () => receiver.indexes.has(last))
    const have = receiver.indexes
    const missing = Array.from({ length: last + 1 }, (_, i) => i).filter((i) => !have.has(i))
    expect(missing).toEqual([])
    expect(new Set(receiver.events().map(({ elements }) => elements[element]?.['uid'])).size).toBe(
      have.size,
    )
    expect(shipper.health().rewinds).toBeGreaterThan(0)
  })
  test('begins where its cursor stands after a restart of the gateway', async () => {
    const receiver = await receiving()
    const log = await open()
    const one = ship(log, receiver.port, { trailBytes: 0, trailMs: 0 })
    for (let n = 0; n < 50; n++) await log.append(stats(n))
    expect(await one.flush(60_000)).toBe(true)
    await eventually(() => one.health().cursor > 20)
    await one.close()
    const { cursor } = one.health()
    const before = receiver.events().length
    const two = ship(log, receiver.port, { trailBytes: 0, trailMs: 0 })
    const { idx } = await log.append(stats(1))
    expect(await two.flush(60_000)).toBe(true)
    await received(receiver, () => receiver.indexes.has(idx))
    expect(Number(receiver.events()[before]?.elements[element]?.['idx'])).toBe(cursor)
  })
  test('a receiver that is slow holds up nobody', async () => {
    const receiver = await receiving()
    receiver.deaf = true
    const log = await open()
    const shipper = ship(log, receiver.port)
    await Promise.all(
      Array.from({ length: 12_000 }, (_, n) => log.append(stats(n, 'y'.repeat(800)))),
    )
    expect(await shipper.flush(300)).toBe(false)
    expect(shipper.lag().events).toBeGreaterThan(1_000)
    await receiver.kill()
    receiver.deaf = false
    await receiver.start()
    await received(receiver, () => receiver.indexes.size >= 12_000)
    await log.append(stats(1))
  })
  test.for([
    { name: 'an expired certificate of ours', more: (c: Certificates) => c.expired },
    { name: 'none of ours', more: () => ({ cert: '', key: '' }) },
    { name: 'a receiver with another name', more: () => ({ servername: 'other.test' }) },
    {
      name: 'a receiver of another root',
      more: async () => ({ ca: (await makeCertificates()).ca }),
    },
  ])('$name: nothing is sent, and health says why', async ({ more }) => {
    const receiver = await receiving()
    const log = await open()
    const shipper = ship(log, receiver.port, await more(certificates))
    await eventually(() => shipper.health().lastError !== null)
    expect(shipper.health()).toMatchObject({ state: 'DOWN', cursor: 0 })
    expect(receiver.messages).toEqual([])
  })
  test('no receiver at all: the log goes on, flush says no, closing does not hang', async () => {
    const log = await open()
    const shipper = ship(log, 1)
    await log.append(stats(1))
    expect(await shipper.flush(50)).toBe(false)
    await shipper.close()
    expect(shipper.health().state).toBe('DOWN')
  })
})

const hasRsyslog =
  spawnSync('rsyslogd', ['-v']).status === 0 &&
  [
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
    '/usr/lib',
    '/lib64',
    '/usr/lib64',
  ].some((at) => existsSync(`${at}/rsyslog/lmnsd_ossl.so`))

/** rsyslogd with stock limits, ended after the test. Resolves when it takes TLS connections. */
async function rsyslogd(directory: string, port: number): Promise<() => Promise<void>> {
  const at = (name: string): string => join(directory, name)
  writeFileSync(at('ca.pem'), certificates.ca)
  writeFileSync(at('server.pem'), certificates.server.cert)
  writeFileSync(at('server.key'), certificates.server.key)
  writeFileSync(
    at('rs.conf'),
    `global(workDirectory="${directory}" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="${at('ca.pem')}"
  defaultNetstreamDriverCertFile="${at('server.pem')}" defaultNetstreamDriverKeyFile="${at('server.key')}")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1"
  StreamDriver.AuthMode="x509/name" PermittedPeer=["client.test"])
template(name="t" type="string" string="%rawmsg%\\n")
ruleset(name="r" queue.type="Direct") { action(type="omfile" file="${at('out')}" template="t" flushOnTXEnd="on") }
input(type="imtcp" address="127.0.0.1" port="${port}" ruleset="r")
`,
  )
  const child = spawn('rsyslogd', ['-n', '-f', at('rs.conf'), '-i', at('pid')], { stdio: 'ignore' })
  const ended = once(child, 'exit')
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  onTestFinished(stop)
  const answers = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(
        {
          host: '127.0.0.1',
          port,
          ca: certificates.ca,
          servername: 'siem.test',
          ...certificates.client,
        },
        () => {
          socket.end()
          resolve(true)
        },
      )
      socket.on('error', () => resolve(false))
    })
  while (!(await answers())) if (child.exitCode !== null) throw new Error('rsyslogd ended')
  return stop
}

describe('shipping to rsyslogd', () => {
  test.skipIf(!hasRsyslog)(
    'killed and started again under load: every event is on its disk, byte for byte',
    async () => {
      const directory = temporary()
      const port = await freePort()
      const out = join(directory, 'out')
      let stop = await rsyslogd(directory, port)
      const log = await open()
      const shipper = ship(log, port)
      const append = (n: number): Promise<unknown> =>
        log.append(stats(n, `load ${'z'.repeat(n % 7_000)}`))
      const grown = (bytes: number): Promise<void> =>
        waitForFile(directory, () => existsSync(out) && statSync(out).size > bytes)
      for (let round = 0; round < 3; round++) {
        const size = existsSync(out) ? statSync(out).size : 0
        await Promise.all(Array.from({ length: 500 }, (_, n) => append(round * 500 + n * 13)))
        await log.checkpoint()
        await grown(size + 100_000)
        await stop()
        stop = await rsyslogd(directory, port)
      }
      expect(await shipper.flush(60_000)).toBe(true)
      const stored = await log.read(0, 5_000)
      const covered = stored.filter(
        ({ cp }) => cp !== null && Number(cp.split('-')[0]) <= log.signed.size,
      )
      const bodies = (): Set<string> =>
        new Set(
          readFileSync(out, 'utf8')
            .split('\n')
            .map((line) => line.slice(line.indexOf('] {') + 2)),
        )
      const missing = (): number[] => {
        const have = bodies()
        return covered
          .filter(({ body }) => !have.has(Buffer.from(body).toString()))
          .map(({ idx }) => idx)
      }
      await waitForFile(directory, () => missing().length === 0)
      expect(missing()).toEqual([])
      expect(covered.length).toBeGreaterThan(1_500)
      // The file of rsyslog itself is the export; lines taken from it are named.
      const own = { directory: log.directory, vkeys: log.vkeys, to: covered.length }
      const lines = readFileSync(out, 'latin1').split('\n')
      const ask = (rows: readonly string[]) =>
        reconcile({ ...own, lines: rows.map((row) => Buffer.from(row, 'latin1')) })
      expect(await ask(lines)).toMatchObject({ outcome: 'complete', missing: [], mismatches: [] })
      const without = lines.filter((row) => !/ idx="70[0-4]" /.test(row))
      expect(await ask(without)).toMatchObject({
        outcome: 'violated',
        missing: [{ from: 700, to: 704 }],
      })
    },
  )
  test.skipIf(!hasRsyslog)(
    'a log that has ended is taken when rsyslogd closes behind its last event, and is on its disk',
    async () => {
      const directory = temporary()
      const port = await freePort()
      await rsyslogd(directory, port)
      const log = await open()
      await Promise.all(Array.from({ length: 200 }, (_, n) => log.append(stats(n))))
      const last = await log.checkpoint()
      const { size } = last
      const { promise, resolve } = Promise.withResolvers<void>()
      const ended: ShippedLog = {
        directory: log.directory,
        origin: log.origin,
        size,
        signed: last,
        taken: resolve,
        append: (event) => log.append(event),
        checkpoint: async () => last,
        onCheckpoint: () => () => undefined,
      }
      const shipper = ship(ended, port, { trailMs: 0 })
      await promise
      expect(shipper.health()).toMatchObject({
        cursor: size,
        owed: 0,
        connects: 1,
        lastError: null,
      })
      const out = join(directory, 'out')
      const isWhole = (text: string): boolean =>
        text.includes(` idx="${size - 1}" `) && text.endsWith('\n')
      await waitForFile(directory, () => existsSync(out) && isWhole(readFileSync(out, 'latin1')))
      const found = await reconcile({
        directory: log.directory,
        vkeys: log.vkeys,
        lines: readFileSync(out, 'latin1')
          .split('\n')
          .map((line) => Buffer.from(line, 'latin1')),
        to: size,
      })
      expect(found).toMatchObject({ outcome: 'complete', missing: [], mismatches: [] })
    },
  )
})

/** Resolves when the condition holds; asked again whenever something in the directory changes. */
async function waitForFile(directory: string, condition: () => boolean): Promise<void> {
  if (condition()) return
  await new Promise<void>((resolve) => {
    const watcher = watch(directory, () => {
      if (!condition()) return
      watcher.close()
      resolve()
    })
    if (!condition()) return
    watcher.close()
    resolve()
  })
}
