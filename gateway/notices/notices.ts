/** Notices as the configuration asks for them: to webhooks, by mail, and whom policy would let approve. */
import { readFileSync } from 'node:fs'
import { Type, type Static } from 'typebox'
import { adminCall } from '#policy'
import type { Decisions } from '../decisions.ts'
import { deviceFacts, grantFacts } from '../facts.ts'
import type { Grant } from '../grants/grant.ts'
import type { ReviewStore } from '../grants/review.ts'
import type { DeviceStore } from '../devices/device.ts'
import type { GrantStore } from '../grants/store.ts'
import type { Account, Identity, Subject } from '../identity/index.ts'
import { NoticeDispatch, type Channel } from './dispatch.ts'
import { mailChannel } from './mail.ts'
import { noticesOf, type Notice, type Unwatched } from './notice.ts'
import type { NoticeStore } from './queue.ts'
import { webhookChannel } from './webhook.ts'

const File = Type.String({ minLength: 1 })
const Address = Type.String({ pattern: '^[^\\s@<>,;"]{1,64}@[^\\s@<>,;"]{1,190}$' })

export const NoticeSettings = Type.Object(
  {
    webhooks: Type.Optional(
      Type.Array(
        Type.Object(
          {
            name: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,31}$' }),
            url: Type.String({ pattern: '^https://[^\\s/?#@]+(/[^\\s?#]*)?$' }),
            ca_file: File,
            servername: Type.Optional(Type.String({ minLength: 1 })),
            /** The secret it is signed with. */
            secret_file: File,
          },
          { additionalProperties: false },
        ),
        { maxItems: 4 },
      ),
    ),
    mail: Type.Optional(
      Type.Object(
        {
          host: Type.String({ minLength: 1 }),
          port: Type.Integer({ minimum: 1, maximum: 65_535 }),
          /** `starttls` where absent. `none` to a server on this machine alone. */
          tls: Type.Optional(
            Type.Union([Type.Literal('starttls'), Type.Literal('implicit'), Type.Literal('none')]),
          ),
          from: Address,
          /** Told of every alarm, beside those who may approve. */
          alarms: Type.Optional(Type.Array(Address, { maxItems: 16 })),
          /** The system's roots where absent. */
          ca_file: Type.Optional(File),
          servername: Type.Optional(Type.String({ minLength: 1 })),
          user: Type.Optional(Type.String({ minLength: 1 })),
          password_file: Type.Optional(File),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
)
export type NoticeSettings = Static<typeof NoticeSettings>

interface NoticeRoom {
  readonly store: NoticeStore
  readonly grants: Pick<GrantStore, 'list' | 'running' | 'find'>
  readonly reviews: Pick<ReviewStore, 'listReviews'>
  readonly devices: Pick<DeviceStore, 'find'>
  readonly decisions: Pick<Decisions, 'weigh'>
  readonly identity: Pick<Identity, 'accounts' | 'issuer'>
  /** The sessions that wait for a supervisor now. */
  readonly waiting: () => readonly Unwatched[]
  readonly origin: string
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** So many grants are looked at: the newest, and those that end next. */
const MOST_GRANTS = 500

/** Begins to send notices; undefined where no channel is configured. Throws for a file that cannot be read. */
export function openNotices(
  { webhooks = [], mail }: NoticeSettings,
  room: NoticeRoom,
): NoticeDispatch | undefined {
  const secretOf = (path: string) => readFileSync(path, 'utf8').trim()
  const { now } = room
  const channels: Channel[] = webhooks.map(({ name, url, ca_file, secret_file, servername }) => {
    const secret = secretOf(secret_file)
    if (secret.length < 16) throw new Error(`${secret_file} holds no secret of 16 letters or more`)
    const named = servername === undefined ? {} : { servername }
    return webhookChannel({
      name,
      url,
      ca: readFileSync(ca_file),
      secret,
      now,
      deadlineMs: 10_000,
      ...named,
    })
  })
  if (mail !== undefined) {
    const { host, port, tls = 'starttls', from, alarms = [], ca_file, servername } = mail
    const { user, password_file: file } = mail
    const approversOf = (of: Notice, most: number) =>
      of.kind === 'session.unwatched'
        ? supervisors(room, of, most)
        : approvers(room, of.grant, most)
    channels.push(
      mailChannel({
        host,
        port,
        tls,
        from,
        alarms,
        approversOf,
        ...(ca_file === undefined ? {} : { ca: readFileSync(ca_file) }),
        ...(servername === undefined ? {} : { servername }),
        ...(user === undefined || file === undefined
          ? {}
          : { login: { user, pass: secretOf(file) } }),
      }),
    )
  }
  if (channels.length === 0) return undefined
  const { store, origin, report } = room
  return new NoticeDispatch({ store, channels, origin, look: () => look(room), now, report })
}

async function look({ grants, reviews, now, waiting }: NoticeRoom) {
  const held = waiting()
  const [newest, running, broken] = await Promise.all([
    grants.list({ limit: MOST_GRANTS }),
    grants.running(MOST_GRANTS),
    reviews.listReviews(MOST_GRANTS),
  ])
  const known = new Map([...newest, ...running].map((grant) => [grant.statement.id, grant]))
  const open = broken.filter(({ closed }) => closed === null)
  for (const { grant: id } of [...open, ...held]) {
    const grant = known.has(id) ? undefined : await grants.find(id)
    if (grant !== undefined) known.set(id, grant)
  }
  return noticesOf([...known.values()], broken, Math.floor(now() / 1000), held)
}

/** So many accounts are asked about before others have their turn: policy answers each at once. */
const PAGE = 64

type People = Pick<NoticeRoom, 'decisions' | 'now'> & {
  readonly identity: { readonly issuer: string } & {
    readonly accounts: Pick<Identity['accounts'], 'list'>
  }
}

/** The first `most` addresses of those whom policy would let approve the grant, had they shown a second factor just now. */
export async function approvers(
  room: Pick<NoticeRoom, 'devices'> & People,
  grant: Grant,
  most: number,
): Promise<readonly string[]> {
  const [id = ''] = grant.statement.devices
  const device = await room.devices.find(id)
  if (device === undefined) return []
  const facts = {
    device: deviceFacts(device, undefined, false),
    grants: [grantFacts({ ...grant, state: 'requested' as const })],
    approval: {
      grant: grantFacts({ ...grant, state: 'requested', approvals: [] }),
      approvals: [],
      signed: true,
    },
  }
  const may = (subject: Subject) =>
    room.decisions.weigh('grant.approve', { ...facts, subject }).allow
  return await staff(room, grant.statement.requester, most, may)
}

/** The same, of those whom policy would let supervise the session. */
async function supervisors(
  room: People,
  { grant: { statement }, session: id = '' }: Pick<Notice, 'grant' | 'session'>,
  most: number,
): Promise<readonly string[]> {
  const owner = statement.requester
  const admin = adminCall('session:supervise', { kind: 'session', id, owner })
  const may = (subject: Subject) => room.decisions.weigh('admin.api', { subject, admin }).allow
  return await staff(room, owner, most, may)
}

/** The first `most` addresses of the staff, but for `holder`, of whom `may` holds. */
async function staff(
  { identity, now }: People,
  holder: string,
  most: number,
  may: (subject: Subject) => boolean,
): Promise<readonly string[]> {
  const found: string[] = []
  for (let after = ''; ;) {
    const page = await identity.accounts.list(after, PAGE)
    for (const account of page) {
      if (account.disabled || account.party !== 'staff') continue
      const subject = provenJustNow(account, identity.issuer, now())
      if (subject.id === holder) continue
      if (may(subject)) found.push(account.email)
      if (found.length >= most) return found
    }
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return found
    after = last.sub
  }
}

function provenJustNow(account: Account, issuer: string, now: number): Subject {
  const seconds = Math.floor(now / 1000)
  const { party, vendor, email, groups, roles, sub } = account
  return {
    id: `${issuer}|${sub}`,
    issuer,
    kind: 'human',
    party,
    vendor,
    email,
    groups,
    roles,
    token_exp: seconds + 3600,
    authn: { methods: ['pwd', 'webauthn'], acr: '', at: seconds },
    claims: {},
    break_glass: null,
  }
}
