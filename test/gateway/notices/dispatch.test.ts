/** Notices on their way: kept until taken, once each, alarms first, and no channel waits for another. */
import { createHmac } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { NoticeDispatch, type Channel } from '../../../gateway/notices/dispatch.ts'
import { mailChannel } from '../../../gateway/notices/mail.ts'
import { messageOf, type Notice } from '../../../gateway/notices/notice.ts'
import { approvers } from '../../../gateway/notices/notices.ts'
import type { Waiting } from '../../../gateway/notices/queue.ts'
import { webhookChannel } from '../../../gateway/notices/webhook.ts'
import { SqliteNoticeStore } from '../../../gateway/store/sqlite/notices.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { makeCertificates, type Certificates } from '../../audit/receiver.ts'
import { until } from '../../support/node.ts'
import { grantAround } from '../grants/around.ts'
import { drippingMailServer, mailReceiver, webhookReceiver } from './receivers.ts'
import { statementOf } from '../../support/statement.ts'

let directory = ''
let certificates: Certificates
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sallyport-notices-'))
  certificates = await makeCertificates()
})
afterAll(() => rmSync(directory, { recursive: true }))

const statement = statementOf(1000, { not_after: 2000 })
const grant = grantAround(statement, { requester_email: 'vera@acme.example' })
const told = (key: string, kind: Notice['kind'] = 'grant.approved'): Notice => ({
  key,
  kind,
  at: 1000,
  grant,
})
const waiting = (more: Partial<Waiting> = {}): Waiting => ({
  id: 'grant.approved g_1 mail vera@acme.example',
  channel: 'mail',
  recipient: 'vera@acme.example',
  message: messageOf(told('k'), 'https://gw.example'),
  tries: 0,
  created_at: 0,
  next_at: 0,
  ...more,
})

let files = 0
function place() {
  const path = join(directory, `${files++}.sqlite`)
  const clock = { now: 1_000_000 }
  const reports: string[] = []
  const news: Notice[] = []
  const start = async (channels: readonly Channel[]) => {
    const thread = await SqliteThread.open(path)
    const store = new SqliteNoticeStore(thread)
    const dispatch = new NoticeDispatch({
      store,
      channels,
      origin: 'https://gw.example',
      look: () => Promise.resolve([...news]),
      now: () => clock.now,
      report: (_, what) => void reports.push(what),
      leaveMs: 1,
    })
    const stop = async () => {
      await dispatch[Symbol.asyncDispose]()
      await thread[Symbol.asyncDispose]()
    }
    onTestFinished(stop)
    return { store, dispatch, stop }
  }
  return { start, clock, reports, news }
}
/** Takes what `takes` says it takes, and keeps the ids. */
function channel(name: string, takes: (waiting: Waiting) => boolean | Promise<boolean>) {
  const sent: string[] = []
  const tried: string[] = []
  const made: Channel = {
    name,
    recipients: () => Promise.resolve(['']),
    async send(one) {
      tried.push(one.id)
      if (!(await takes(one))) throw new Error('not now')
      sent.push(one.id)
    },
  }
  return { made, sent, tried }
}

describe('a message', () => {
  test('goes once to each channel, however often it is looked at, and after a restart not again', async () => {
    const { start, news } = place()
    const [one, two] = [channel('one', () => true), channel('two', () => true)]
    news.push(told('k1'), told('k2'))
    const first = await start([one.made, two.made])
    await until('both are sent', () => one.sent.length === 2 && two.sent.length === 2)
    first.dispatch.poke()
    await until('nothing waits', async () => (await first.store.tidy(0)) === 0)
    await first.stop()
    const other = channel('one', () => true)
    const second = await start([other.made])
    news.push(told('k3'))
    second.dispatch.poke()
    await until('the new one is sent', () => other.sent.length > 0)
    expect([one.sent.length, other.sent]).toEqual([2, ['k3 one ']])
  })

  test('that is not taken waits on disk, through a restart, with the same id', async () => {
    const { start, news, clock, reports } = place()
    news.push(told('k1'))
    const shut = channel('one', () => false)
    const first = await start([shut.made])
    await until('it was tried', () => first.dispatch.health().last_error !== null)
    expect(first.dispatch.health().last_error).toBe('one: not now')
    await first.stop()
    expect(reports).toEqual(['a notice was not taken; it is tried again'])
    const open = channel('one', () => true)
    news.length = 0
    clock.now += 15_000
    await start([open.made])
    await until('it is sent', () => open.sent.length === 1)
    expect(open.sent).toEqual(shut.tried)
  })

  test('sent, and the node killed before it was crossed off: sent again, and known by its id', async () => {
    const { start, news } = place()
    news.push(told('k1'))
    const { promise: never } = Promise.withResolvers<boolean>()
    const hung = channel('one', async () => never)
    const first = await start([hung.made])
    await until('it is under way', () => hung.tried.length === 1)
    await first.stop()
    const open = channel('one', () => true)
    await start([open.made])
    await until('it is sent', () => open.sent.length === 1)
    expect(open.sent).toEqual(hung.tried)
  })

  test('is given up after a day, and said so', async () => {
    const { start, news, clock, reports } = place()
    news.push(told('k1'))
    const first = await start([channel('one', () => false).made])
    await until('it was tried', () => first.dispatch.health().last_error !== null)
    await first.stop()
    news.length = 0
    clock.now += 86_400_001
    const second = await start([channel('one', () => false).made])
    await until('it is given up', () => second.dispatch.health().given_up === 1)
    expect(await second.store.tidy(0)).toBe(0)
    expect(reports.at(-1)).toBe('a notice was given up after a day')
  })

  test('of one series three go out, in each channel, through a restart; of others as many', async () => {
    const { start, news } = place()
    const one = channel('one', () => true)
    const series = (of: string, nth: number) => ({ ...told(`${of} ${nth}`), series: `${of} ` })
    news.push(...[1, 2, 3, 4].map((nth) => series('u g_1', nth)), series('u g_10', 1), told('k'))
    const first = await start([one.made])
    await until('what goes out went', () => one.sent.length === 5)
    await until('nothing waits', async () => (await first.store.tidy(0)) === 0)
    await first.stop()
    const [again, two] = [channel('one', () => true), channel('two', () => true)]
    news.push(told('k2'))
    await start([again.made, two.made])
    await until('what is new went', () => again.sent.length > 0 && two.sent.length === 6)
    expect(one.sent.map((id) => id.split(' one')[0])).toEqual([
      'u g_1 1',
      'u g_1 2',
      'u g_1 3',
      'u g_10 1',
      'k',
    ])
    expect(again.sent).toEqual(['k2 one '])
  })

  test('of a session that waits for a supervisor is not sent when that has ended', async () => {
    const { start, news, clock } = place()
    const shut = channel('one', () => false)
    news.push(told('u', 'session.unwatched'), told('k'))
    const first = await start([shut.made])
    await until('it was tried', () => shut.tried.length > 0)
    await first.stop()
    clock.now += 300_000
    const open = channel('one', () => true)
    const second = await start([open.made])
    await until('the other is sent', () => open.sent.length > 0)
    await until('nothing waits', async () => (await second.store.tidy(0)) === 0)
    expect([open.tried, second.dispatch.health().given_up]).toEqual([['k one '], 1])
  })

  test('a channel that hangs holds up no other', async () => {
    const { start, news } = place()
    news.push(told('k1'))
    const { promise: never } = Promise.withResolvers<boolean>()
    const [hung, open] = [channel('one', async () => never), channel('two', () => true)]
    const { dispatch } = await start([hung.made, open.made])
    await until('the other is sent', () => open.sent.length === 1)
    news.push(told('k2'))
    dispatch.poke()
    await until('and the next', () => open.sent.length === 2)
    expect(hung.tried).toHaveLength(1)
  })

  test('what is due goes out behind more alarms than one look reads, that nobody takes yet', async () => {
    const { start } = place()
    const { store } = await start([])
    const add = async (key: string, urgent: boolean) =>
      await store.addNotice({
        key,
        channel: 'one',
        urgent,
        rows: [{ id: key, recipient: '', message: waiting().message }],
        now: 100,
        most: 1200,
      })
    for (let at = 0; at < 70; at++) {
      await add(`alarm ${at}`, true)
      await store.failed(`alarm ${at}`, 200)
    }
    await add('k1', false)
    const due = async (now: number, latest: number) =>
      (await store.dueOf({ channel: 'one', now, latest, limit: 64 })).map(({ id }) => id)
    expect([await due(99, 300), await due(100, 300)]).toEqual([[], ['k1']])
    expect(await due(200, 300)).toHaveLength(64)
    // A clock that was put back makes no pause longer than the longest.
    expect(await due(50, 199)).toHaveLength(64)
  })

  test('of more than one look reads all go out at once', async () => {
    const { start, news } = place()
    const crowd = Array.from({ length: 400 }, (_, at) => `${at}@plant.example`)
    const open = channel('mail', () => true)
    news.push(told('k1'))
    await start([{ ...open.made, recipients: () => Promise.resolve(crowd) }])
    await until('all are sent', () => open.sent.length === 400)
  })

  test('who is to be told is worked out while there is room, and of what comes after the first that has none never', async () => {
    const { start, news } = place()
    const crowd = Array.from({ length: 500 }, (_, at) => `${at}@plant.example`)
    const [dead, last] = [channel('mail', () => false), channel('last', () => true)]
    const asked: string[] = []
    const recipients = ({ key }: Notice) => {
      asked.push(key)
      return Promise.resolve(crowd)
    }
    news.push(...['k1', 'k2', 'k3', 'k4'].map((key) => told(key)))
    await start([{ ...dead.made, recipients }, last.made])
    await until('the others are told', () => last.sent.length === 4)
    expect(asked).toEqual(['k1', 'k2'])
  })

  test('a channel that is full to the last alarm silences no other', async () => {
    const { start, news } = place()
    const crowd = Array.from({ length: 1201 }, (_, at) => `${at}@plant.example`)
    const [dead, pager] = [channel('mail', () => false), channel('pager', () => true)]
    const full = { ...dead.made, recipients: () => Promise.resolve(crowd) }
    news.push(told('alarm', 'break_glass.opened'), told('k1'))
    const { store } = await start([full, pager.made])
    await until('the pager has both', () => pager.sent.length === 2)
    expect(pager.sent).toEqual(['alarm pager ', 'k1 pager '])
    expect(await store.newOf('mail', ['alarm', 'k1'])).toEqual(['alarm', 'k1'])
  })

  test('no more than 1,000 wait in a channel; an alarm finds room beyond, and goes first; what found none is not forgotten', async () => {
    const { start, news } = place()
    const { store, stop } = await start([])
    const add = async (key: string, urgent: boolean, to = 'one') =>
      await store.addNotice({
        key,
        channel: to,
        urgent,
        rows: [{ id: `${key} ${to}`, recipient: '', message: waiting().message }],
        now: 1,
        most: urgent ? 1200 : 1000,
      })
    for (let at = 0; at < 1000; at++) expect(await add(`k${at}`, false)).toBe(true)
    expect([await add('more', false), await add('alarm', true)]).toEqual([false, true])
    expect(await store.newOf('one', ['more', 'alarm', 'k1'])).toEqual(['more'])
    const due = async (of: string) =>
      (await store.dueOf({ channel: of, now: 1, latest: 2, limit: 9 })).map(({ id }) => id)
    expect((await due('one'))[0]).toBe('alarm one')
    // A channel that nobody empties leaves the room of the others as it is.
    expect(await store.newOf('two', ['more', 'alarm'])).toEqual(['more', 'alarm'])
    expect([await add('more', false, 'two'), await add('alarm', true, 'two')]).toEqual([true, true])
    expect(await due('two')).toEqual(['alarm two', 'more two'])
    await stop()
    news.length = 0
  })
})

describe('a webhook', () => {
  const SECRET = 'a secret of some length'
  const to = (url: string, more: object = {}) =>
    webhookChannel({
      name: 'ops',
      url,
      ca: Buffer.from(certificates.ca),
      secret: SECRET,
      servername: 'siem.test',
      now: () => 1_780_000_000_500,
      deadlineMs: 10_000,
      ...more,
    })
  test('is signed over time and body, and carries an id by which it is known again', async () => {
    await using receiver = await webhookReceiver(certificates.server)
    const hook = to(receiver.url)
    await hook.send(waiting())
    await hook.send(waiting())
    const [one, again] = receiver.posted
    const { 'x-sallyport-timestamp': at, 'x-sallyport-signature': signature } = one?.headers ?? {}
    const expected = createHmac('sha256', SECRET).update(`1780000000.${one?.body}`).digest('hex')
    expect([at, signature]).toEqual(['1780000000', `v1=${expected}`])
    expect(one?.headers['idempotency-key']).toBe(again?.headers['idempotency-key'])
    expect(JSON.parse(one?.body ?? '')).toMatchObject({ kind: 'grant.approved', grant: 'g_1' })
    expect(one?.body).not.toContain(SECRET)
  })
  test.for([301, 307, 400, 404, 500])(
    'that answers %i has not taken it, and is not followed',
    async (status) => {
      await using receiver = await webhookReceiver(certificates.server, [status])
      await expect(to(receiver.url).send(waiting())).rejects.toThrow(`answered ${status}`)
      expect(receiver.posted).toHaveLength(1)
    },
  )
  test.for<readonly [string, () => object]>([
    ['of another name', () => ({ servername: 'other.test' })],
    ['that another CA vouches for', () => ({ ca: Buffer.from(certificates.client.cert) })],
  ])('%s is told nothing', async ([, more]) => {
    await using receiver = await webhookReceiver(certificates.server)
    await expect(to(receiver.url, more()).send(waiting())).rejects.toThrow()
    expect(receiver.posted).toEqual([])
  })
})

describe('mail', () => {
  const LOGIN = { user: 'sally', pass: 'the password' }
  const by = (port: number, more: object = {}) =>
    mailChannel({
      host: '127.0.0.1',
      port,
      tls: 'starttls',
      from: 'sallyport@plant.example',
      ca: Buffer.from(certificates.ca),
      servername: 'siem.test',
      login: LOGIN,
      alarms: ['control-room@plant.example'],
      approversOf: () => Promise.resolve(['oda@plant.example', 'control-room@plant.example']),
      ...more,
    })
  test('goes out over TLS, to one address, as plain text', async () => {
    await using server = await mailReceiver(certificates.server)
    await by(server.port).send(waiting())
    const [mail] = server.mails
    expect(mail).toMatchObject({ encrypted: true, to: ['vera@acme.example'] })
    expect(mail?.login).toBe('\0sally\0the password')
    expect(mail?.text).toMatch(/^Subject: Access to press-07\/plc is approved$/m)
    expect(mail?.text).toMatch(/^Auto-Submitted: auto-generated$/m)
    expect(mail?.text).toMatch(/^Content-Type: text\/plain/m)
    expect(mail?.text).toMatch(/^Message-ID: <[0-9a-f]{32}@plant.example>$/m)
    expect(server.open.join('\n')).not.toMatch(/AUTH|MAIL|RCPT/)
  })
  test.for<readonly [string, object, object]>([
    ['a server that offers no TLS', { starttls: false }, {}],
    ['a server of another name', {}, { servername: 'other.test' }],
    ['a server that another CA vouches for', {}, { ca: undefined }],
  ])('%s is told nothing, least of all the password', async ([, server, more]) => {
    await using receiver = await mailReceiver(certificates.server, server)
    await expect(by(receiver.port, more).send(waiting())).rejects.toThrow(/did not take it/)
    expect(receiver.mails).toEqual([])
    expect(receiver.open.join('\n')).not.toMatch(/AUTH|MAIL FROM|RCPT/)
  })
  test('what the server says no to is said without what was said to it', async () => {
    await using server = await mailReceiver(certificates.server, { rcpt: '550 the password' })
    const failure = by(server.port).send(waiting())
    await expect(failure).rejects.toThrow('the mail server did not take it: EENVELOPE 550')
    await expect(failure).rejects.not.toThrow(/password/)
  })
  test('a server that drips its answer is left at the deadline, and the connection with it', async () => {
    await using server = await drippingMailServer()
    // The deadline is of the row's own time: it comes when the drip has begun, however slow the machine is.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const ended = by(server.port, { deadlineMs: 500 })
      .send(waiting())
      .catch((error: unknown) => error)
    await server.dripped
    vi.advanceTimersByTime(500)
    expect(await ended).toMatchObject({ message: 'the mail server did not take it within 0.5 s' })
    await server.gone
  })
  test('a server that is not there is said at once', async () => {
    const refused = 'the mail server did not take it: ECONNREFUSED'
    await expect(by(1).send(waiting())).rejects.toThrow(refused)
  })
  test('an address that names two is one, and reaches nobody else', async () => {
    await using server = await mailReceiver(certificates.server)
    const two = 'vera@acme.example, eve@evil.example'
    await by(server.port)
      .send(waiting({ recipient: two }))
      .catch(() => undefined)
    expect(server.mails.flatMap(({ to }) => to)).not.toContain('eve@evil.example')
  })
  test('of however many who might approve as many are asked about as are written to', async () => {
    const asked: string[] = []
    const list = (after: string, limit: number) =>
      Promise.resolve(
        Array.from({ length: limit }, (_, at) => {
          const sub = String(Number(after) + at + 1).padStart(6, '0')
          return { sub, email: `${sub}@plant.example`, party: 'staff', groups: [], roles: [] }
        }),
      )
    const room = {
      devices: { find: () => Promise.resolve({ id: 'press-07', labels: {}, processes: [] }) },
      decisions: {
        weigh: (_: string, { subject }: { subject: { email: string } }) => {
          asked.push(subject.email)
          return { allow: asked.length % 2 === 0 }
        },
      },
      identity: { issuer: 'iss', accounts: { list } },
      now: () => 0,
    } as unknown as Parameters<typeof approvers>[0]
    const found = await approvers(room, grant, 50)
    expect([found.length, found.at(-1), asked.length]).toEqual([50, '000100@plant.example', 100])
  })
  test('is for the holder, for who may approve, or for these and the control room', async () => {
    const mail = by(1)
    const to = async (kind: Notice['kind']) => await mail.recipients(told('k', kind))
    expect(await to('grant.ending')).toEqual(['vera@acme.example'])
    expect(await to('grant.requested')).toEqual(['oda@plant.example', 'control-room@plant.example'])
    expect(await to('break_glass.opened')).toEqual([
      'control-room@plant.example',
      'oda@plant.example',
    ])
  })
})
