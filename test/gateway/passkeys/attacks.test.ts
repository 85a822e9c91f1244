/** Passkeys against who would get in by them: each row is one way to try. */
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Ceremony, CeremonyShown, Grant, Passkey } from '#api'
import { grantFacts } from '../../../gateway/facts.ts'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqlitePasskeyStore } from '../../../gateway/store/sqlite/passkeys.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { softKey, type Bend, type SoftKey } from '../../support/authenticator.ts'
import { checkOpening, type ApproverSet } from '#approval'
import type { Input } from '#policy'
import {
  openSession,
  send,
  sha256,
  startNode,
  TENANT,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { answer as answerPolicy } from '../../support/policy.ts'
import { attach, Client, expecting, PLC, seen, serve } from '../../support/tunnels.ts'

let node: TestNode
let oda: Person
let olaf: Person
let vera: Person
let own: SoftKey
let others: SoftKey

const post = async (path: string, body: object) =>
  send(node, { method: 'POST', path: `/api/v1/ceremonies/${path}`, body })
const answer = async ({ secret }: Ceremony, credential: object) =>
  post('answer', { secret, credential })
const challengeOf = ({ options }: Ceremony) => (options as { challenge: string }).challenge

async function addKey(who: Person, name: string): Promise<SoftKey> {
  const key = softKey(node.origin)
  const asked = await who.ask<Ceremony>('POST', '/passkeys', { name })
  const reply = await answer(asked, key.register(challengeOf(asked)))
  if (reply.status !== 200) throw new Error(reply.text)
  return key
}

beforeAll(async () => {
  node = await startNode()
  await node.device('press-07', { plc: expecting() })
  ;[oda, olaf, vera] = await Promise.all([
    node.person('oda', { party: 'staff', roles: ['operator'] }),
    node.person('olaf', { party: 'staff', roles: ['operator'] }),
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
  ])
  own = await addKey(oda, 'key')
  others = await addKey(olaf, 'key')
})
afterAll(async () => node[Symbol.asyncDispose]())

let from = 0
beforeEach(() => void (from = node.size()))
const since = (code: string) => node.events(from).filter((event) => event.code === code)

const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'service' }
const request = async () => await vera.ask<Grant>('POST', '/grants', WANTED)
const approval = async (who: Person, { id }: Grant) =>
  await who.ask<Ceremony>('POST', `/grants/${id}/approval`, {})

describe('an approval is refused, recorded, and changes nothing', () => {
  const rows: readonly { readonly name: string; readonly bend: Bend; readonly code: string }[] = [
    { name: 'of another site', bend: { origin: 'https://evil.example' }, code: 'assertion.origin' },
    { name: 'for another relying party', bend: { rpId: 'evil.example' }, code: 'assertion.rp' },
    { name: 'nobody was verified', bend: { flags: 0x01 }, code: 'assertion.verification' },
    { name: 'nobody was present', bend: { flags: 0x04 }, code: 'assertion.presence' },
    { name: 'the counter stands still', bend: { counter: 0 }, code: 'passkey.counter' },
    { name: 'over another challenge', bend: { challenge: 'AAAA' }, code: 'assertion.challenge' },
    { name: 'a registration instead', bend: { type: 'webauthn.create' }, code: 'assertion.type' },
  ]
  test.for(rows)('$name', async ({ bend, code }) => {
    // One that counts: from here on, what does not go up is a copy's.
    const first = await oda.ask<Ceremony>('POST', '/step-up', {})
    expect((await answer(first, own.answer(challengeOf(first)))).status).toBe(200)
    const grant = await request()
    const asked = await approval(oda, grant)
    from = node.size()
    const reply = await answer(asked, own.answer(challengeOf(asked), bend))
    expect([reply.status, reply.body.code]).toEqual([403, code])
    const after = await oda.ask<Grant>('GET', `/grants/${grant.id}`)
    expect([after.state, after.approvals]).toEqual(['requested', []])
    expect(since('auth.stepup').map(({ text }) => text.includes(`"${code}"`))).toEqual([true])
    expect(since('grant.approve')).toEqual([])
    // And the question is used up.
    const again = await answer(asked, own.answer(challengeOf(asked)))
    expect([again.status, again.body.code]).toEqual([404, 'ceremony.unknown'])
  })

  test('the counter goes back: a copy of the authenticator', async () => {
    const high = await oda.ask<Ceremony>('POST', '/step-up', {})
    expect((await answer(high, own.answer(challengeOf(high), { counter: 1000 }))).status).toBe(200)
    const low = await oda.ask<Ceremony>('POST', '/step-up', {})
    const reply = await answer(low, own.answer(challengeOf(low), { counter: 999 }))
    expect([reply.status, reply.body.code]).toEqual([403, 'passkey.counter'])
    own = await replaced(oda)
  })

  test('by a passkey of another account', async () => {
    const grant = await request()
    const asked = await approval(oda, grant)
    const reply = await answer(asked, others.answer(challengeOf(asked)))
    expect([reply.status, reply.body.code]).toEqual([403, 'passkey.foreign'])
    const handle = Buffer.from('somebody else').toString('base64url')
    const second = await approval(oda, grant)
    const bent = own.answer(challengeOf(second))
    const named = { ...bent, response: { ...bent.response, userHandle: handle } }
    expect((await answer(second, named)).body.code).toBe('passkey.foreign')
  })

  test('by a passkey that nobody registered', async () => {
    const asked = await approval(oda, await request())
    const reply = await answer(asked, softKey(node.origin).answer(challengeOf(asked)))
    expect([reply.status, reply.body.code]).toEqual([403, 'passkey.foreign'])
  })

  test('with what was signed for another grant', async () => {
    const [one, other] = [await request(), await request()]
    const first = await approval(oda, one)
    const signed = own.answer(challengeOf(first))
    const second = await approval(oda, other)
    const reply = await answer(second, signed)
    expect([reply.status, reply.body.code]).toEqual([403, 'assertion.challenge'])
    expect((await oda.ask<Grant>('GET', `/grants/${other.id}`)).approvals).toEqual([])
    // The first is still what it was signed for.
    expect((await answer(first, signed)).status).toBe(200)
  })

  test('once more for the same grant', async () => {
    const grant = await request()
    const asked = await approval(oda, grant)
    const signed = own.answer(challengeOf(asked))
    expect((await answer(asked, signed)).status).toBe(200)
    expect((await answer(asked, signed)).body.code).toBe('ceremony.unknown')
    const second = await approval(oda, grant)
    const reply = await answer(second, signed)
    expect([reply.status, reply.body.code]).toEqual([403, 'passkey.counter'])
  })

  test('of a grant that was edited in the store after it was asked, and of its hash', async () => {
    const grant = await request()
    const asked = await approval(oda, grant)
    const row = node.rows('SELECT statement FROM access_grant WHERE id = ?', grant.id)[0]
    const edited = String(row?.['statement']).replace(
      '"max_duration_s":60',
      '"max_duration_s":6000',
    )
    node.change('UPDATE access_grant SET statement = ? WHERE id = ?', edited, grant.id)
    const reply = await answer(asked, own.answer(challengeOf(asked)))
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.changed'])
    node.change('UPDATE access_grant SET hash = ? WHERE id = ?', sha256(edited), grant.id)
    const second = await approval(olaf, grant)
    const signed = own.answer(challengeOf(asked))
    expect((await answer(second, signed)).body.code).toBe('passkey.foreign')
    const third = await approval(oda, grant)
    expect((await answer(third, signed)).body.code).toBe('assertion.challenge')
    expect(node.rows('SELECT * FROM grant_approval WHERE grant_id = ?', grant.id)).toEqual([])
  })

  test('one’s own request', async () => {
    const mine = await oda.ask<Grant>('POST', '/grants', WANTED)
    const asked = await approval(oda, mine)
    const reply = await answer(asked, own.answer(challengeOf(asked)))
    expect([reply.status, reply.body.code]).toEqual([403, 'host.approver_is_requester'])
  })
})

async function replaced(who: Person): Promise<SoftKey> {
  const accounts = await node.admin.ask<{ items: { sub: string }[] }>(
    'GET',
    `/accounts?email=${who.email}`,
  )
  const { sub } = accounts.items[0]!
  const left = await node.admin.ask<{ items: Passkey[] }>(
    'POST',
    `/accounts/${sub}/passkeys/remove`,
    {},
  )
  expect(left.items).toEqual([])
  return addKey(await signedInAgain(who), 'new')
}

describe('a reset while a passkey is being added leaves none', () => {
  const started = async (name: string) => {
    const who = await node.person(name, { party: 'staff', roles: ['operator'] })
    const { items } = await node.admin.ask<{ items: { sub: string }[] }>(
      'GET',
      `/accounts?email=${who.email}`,
    )
    const asked = await who.ask<Ceremony>('POST', '/passkeys', { name: 'late' })
    const add = async () => answer(asked, softKey(node.origin).register(challengeOf(asked)))
    const path = `/accounts/${items[0]!.sub}/passkeys/remove`
    const reset = async () => node.admin.ask<{ items: Passkey[] }>('POST', path, {})
    return { who, add, reset }
  }

  test('answered before, added after', async () => {
    const { add, reset, who } = await started('otto')
    const spy = vi.spyOn(SqlitePasskeyStore.prototype, 'addPasskey')
    onTestFinished(() => spy.mockRestore())
    spy.mockImplementationOnce(async function (this: SqlitePasskeyStore, ...args) {
      await reset()
      return this.addPasskey(...args)
    })
    const reply = await add()
    expect([reply.status, reply.body.code]).toEqual([403, 'login.ended'])
    expect(since('auth.stepup').at(-1)?.text).toContain('"login.ended"')
    const again = await node.signIn(who.email)
    expect((await again.ask<{ items: Passkey[] }>('GET', '/passkeys')).items).toEqual([])
  })

  test('added after the reset counted them', async () => {
    const { add, reset, who } = await started('otis')
    const spy = vi.spyOn(SqlitePasskeyStore.prototype, 'passkeysOf')
    onTestFinished(() => spy.mockRestore())
    spy.mockImplementationOnce(async function (this: SqlitePasskeyStore, sub) {
      const held = await this.passkeysOf(sub)
      expect((await add()).status).toBe(200)
      return held
    })
    await reset()
    const again = await node.signIn(who.email)
    expect((await again.ask<{ items: Passkey[] }>('GET', '/passkeys')).items).toEqual([])
  })
})

/** An administrator's reset ended every login. */
async function signedInAgain({ email }: Person): Promise<Person> {
  const again = await node.signIn(email)
  if (email === oda.email) oda = again
  return again
}

describe('a question', () => {
  test('is nobody’s after five minutes', async () => {
    const asked = await oda.ask<Ceremony>('POST', '/step-up', {})
    node.change(
      "UPDATE oidc SET payload = json_set(payload, '$.until', 1) WHERE model = 'Ceremony'",
    )
    for (const path of ['show', 'answer'] as const) {
      const credential = own.answer(challengeOf(asked))
      const body = path === 'show' ? { secret: asked.secret } : { secret: asked.secret, credential }
      expect((await post(path, body)).body.code).toBe('ceremony.unknown')
    }
  })

  test('ends with the sign-in that asked it', async () => {
    const asked = await vera.call<Ceremony>('POST', '/passkeys', { name: 'x' })
    await node.admin.ask('POST', `/accounts/${await subOf(vera)}/disable`, {})
    const reply = await post('show', { secret: asked.body.secret })
    expect([reply.status, reply.body.code]).toEqual([404, 'ceremony.unknown'])
    await node.admin.ask('POST', `/accounts/${await subOf(vera)}/enable`, {})
    vera = await node.person('vanja', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  })

  test('two answers at once: one counts', async () => {
    const asked = await oda.ask<Ceremony>('POST', '/step-up', {})
    const replies = await Promise.all(
      Array.from({ length: 6 }, async () => answer(asked, own.answer(challengeOf(asked)))),
    )
    expect(replies.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      200, 404, 404, 404, 404, 404,
    ])
  })

  test('of a sign-in is answered on its own page only', async () => {
    const reply = await post('show', { secret: 'A'.repeat(43) })
    expect([reply.status, reply.body.code]).toEqual([404, 'ceremony.unknown'])
  })

  test('of a step up shows where it was asked from', async () => {
    const { secret } = await oda.ask<Ceremony>('POST', '/step-up', {})
    const shown = await send<CeremonyShown>(node, {
      method: 'POST',
      path: '/api/v1/ceremonies/show',
      body: { secret },
    })
    expect(shown.body.facts[0]).toEqual(['Asked from', '127.0.0.1'])
  })

  test('shows the whole statement and whose passkey is asked', async () => {
    const grant = await request()
    const asked = await approval(oda, grant)
    const shown = await send<CeremonyShown>(node, {
      method: 'POST',
      path: '/api/v1/ceremonies/show',
      body: { secret: asked.secret },
    })
    expect(shown.body).toMatchObject({ kind: 'approve', email: oda.email })
    const facts = Object.fromEntries(shown.body.facts)
    expect(facts).toMatchObject({
      Device: 'press-07',
      Process: 'plc',
      Grant: grant.id,
      Tenant: TENANT,
      'Asked at': new Date(grant.created_at * 1000).toISOString().replace('.000Z', 'Z'),
      'Industrial protocols': ['none', 'read only', 'read and write'][grant.ot_level],
      Statement: grant.hash,
    })
    expect(challengeOf(asked)).toBe(Buffer.from(grant.hash, 'hex').toString('base64url'))
  })
})

const subOf = async (who: Person): Promise<string> => {
  const found = await node.admin.ask<{ items: { sub: string }[] }>(
    'GET',
    `/accounts?email=${who.email}`,
  )
  return found.items[0]?.sub ?? ''
}

describe('a new passkey', () => {
  let nina: Person
  beforeAll(async () => {
    nina = await node.person('nina', { party: 'staff', roles: ['operator'] })
  })
  test('takes the one there is: a password alone makes no second factor', async () => {
    const reply = await olaf.call('POST', '/passkeys', { name: 'thief' })
    expect([reply.status, reply.body.code]).toEqual([403, 'passkey.stale'])
  })
  test('of another account is not taken', async () => {
    const asked = await nina.ask<Ceremony>('POST', '/passkeys', { name: 'x' })
    const reply = await answer(asked, others.register(challengeOf(asked)))
    expect([reply.status, reply.body.code]).toEqual([409, 'passkey.exists'])
  })
  test.for([
    { name: 'made at another site', bend: { origin: 'https://evil.example' } },
    { name: 'for another relying party', bend: { rpId: 'evil.example' } },
    { name: 'nobody was verified', bend: { flags: 0x41 } },
    { name: 'over another challenge', bend: { challenge: 'AAAA' } },
    { name: 'an assertion instead', bend: { type: 'webauthn.get' } },
  ])('$name', async ({ bend }) => {
    const asked = await nina.ask<Ceremony>('POST', '/passkeys', { name: 'x' })
    const reply = await answer(asked, softKey(node.origin).register(challengeOf(asked), bend))
    expect([reply.status, reply.body.code]).toEqual([403, 'registration.invalid'])
    expect((await nina.ask<{ items: Passkey[] }>('GET', '/passkeys')).items).toEqual([])
  })
  test('is removed by who has just shown one', async () => {
    const path = `/passkeys/${others.id}/remove`
    const reply = await olaf.call('POST', path, {})
    expect([reply.status, reply.body.code]).toEqual([403, 'mfa.stale'])
    const asked = await olaf.ask<Ceremony>('POST', '/step-up', {})
    await answer(asked, others.answer(challengeOf(asked)))
    expect(await olaf.ask('POST', path, {})).toEqual({ items: [] })
  })
})

describe('a passkey that was taken away', () => {
  const stepUp = async (who: Person, key: SoftKey) => {
    const asked = await who.ask<Ceremony>('POST', '/step-up', {})
    expect((await answer(asked, key.answer(challengeOf(asked)))).status).toBe(200)
  }
  test('by an administrator: who had shown it is signed out, and their questions ended', async () => {
    const rita = await node.person('rita', { party: 'staff', roles: ['operator'] })
    const key = await addKey(rita, 'lost')
    await stepUp(rita, key)
    const mine = softKey(node.origin)
    const asked = await rita.ask<Ceremony>('POST', '/passkeys', { name: 'thief' })
    await node.admin.ask('POST', `/accounts/${await subOf(rita)}/passkeys/remove`, {})
    const reply = await answer(asked, mine.register(challengeOf(asked)))
    expect([reply.status, reply.body.code]).toEqual([404, 'ceremony.unknown'])
    await expect(rita.call('POST', '/passkeys', { name: 'thief' })).rejects.toThrow(
      'the login has ended',
    )
    const again = await node.signIn(rita.email)
    expect(await again.ask('GET', '/passkeys')).toEqual({ items: [], next: null })
  })
  test('by nobody for whom a company’s provider claims a passkey, and none is added', async () => {
    const fred = await node.person('fred', { party: 'staff', roles: ['operator'] })
    const key = await addKey(fred, 'key')
    // As `--method hwk=webauthn` has it: the method, of now, and not our own question.
    const acr = 'urn:sallyport:acr:federated'
    const claimed = { methods: ['webauthn'], acr, at: Math.floor(Date.now() / 1000) }
    node.change(
      'UPDATE login SET stepped = ? WHERE sub = ?',
      JSON.stringify(claimed),
      await subOf(fred),
    )
    const removal = await fred.call('POST', `/passkeys/${key.id}/remove`, {})
    expect([removal.status, removal.body.code]).toEqual([403, 'mfa.stale'])
    const more = await fred.call('POST', '/passkeys', { name: 'thief' })
    expect([more.status, more.body.code]).toEqual([403, 'passkey.stale'])
  })
  test('by its owner: no login has stepped up by it any more', async () => {
    const rolf = await node.person('rolf', { party: 'staff', roles: ['operator'] })
    const first = await addKey(rolf, 'first')
    await stepUp(rolf, first)
    const second = softKey(node.origin)
    const asked = await rolf.ask<Ceremony>('POST', '/passkeys', { name: 'second' })
    expect((await answer(asked, second.register(challengeOf(asked)))).status).toBe(200)
    const under = await rolf.ask<Ceremony>('POST', '/passkeys', { name: 'under way' })
    await rolf.ask('POST', `/passkeys/${first.id}/remove`, {})
    const late = await answer(under, softKey(node.origin).register(challengeOf(under)))
    expect([late.status, late.body.code]).toEqual([409, 'passkey.moved'])
    const other = await rolf.call('POST', `/passkeys/${second.id}/remove`, {})
    expect([other.status, other.body.code]).toEqual([403, 'mfa.stale'])
    const more = await rolf.call('POST', '/passkeys', { name: 'third' })
    expect([more.status, more.body.code]).toEqual([403, 'passkey.stale'])
    await stepUp(rolf, second)
    const third = await rolf.ask<Ceremony>('POST', '/passkeys', { name: 'third' })
    const key = softKey(node.origin)
    expect((await answer(third, key.register(challengeOf(third)))).status).toBe(200)
    expect((await rolf.ask<{ items: Passkey[] }>('GET', '/passkeys')).items).toHaveLength(2)
    expect((await rolf.call('POST', `/passkeys/${key.id}/remove`, {})).status).toBe(200)
    await stepUp(rolf, second)
    expect(await rolf.ask('POST', `/passkeys/${second.id}/remove`, {})).toEqual({ items: [] })
  })
})

test('a device in two-key mode gets all it needs to decide by itself', async () => {
  const identity = await node.device('press-09', { plc: expecting() })
  const seenNow = seen(PLC, 'listener')
  await using agent = await attach(node, identity, { listeners: { plc: seenNow } })
  const inputs = new Map<string, Input>()
  answerPolicy((decision, point, input) => {
    inputs.set(point, input as Input)
    return decision
  })
  const person = await node.person('vito', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const grant = await person.ask<Grant>('POST', '/grants', { ...WANTED, device: 'press-09' })
  const asked = await approval(oda, grant)
  expect((await answer(asked, own.answer(challengeOf(asked)))).status).toBe(200)
  const session = await openSession(person, 'press-09', 'plc')
  expect(inputs.get('grant.approve')?.approval).toMatchObject({ signed: true })
  const [facts] = inputs.get('session.open')?.grants ?? []
  expect(facts?.signers).toEqual(facts?.approvers)
  expect(facts?.signers).toHaveLength(1)
  await using client = await Client.dial(node)
  await client.stream(session)
  const [opened] = agent.opened
  const set = {
    v: 1,
    tenant: TENANT,
    device: 'press-09',
    seq: 1,
    quorum: 1,
    relying_party: { id: 'localhost', origins: [node.origin] },
    approvers: [{ person: 'oda', credential: own.id, key: own.signing }],
    modbus: [],
  } as const satisfies ApproverSet
  const now = Math.floor(Date.now() / 1000)
  const open = {
    process: 'plc',
    otLevel: undefined,
    now,
    grant: (opened as { grant?: unknown }).grant,
  }
  expect(checkOpening(set, open)).toMatchObject({ ok: true, hash: grant.hash })

  // Edited where it is kept, after it was approved: it has no approvals any more.
  const row = node.rows('SELECT statement FROM access_grant WHERE id = ?', grant.id)[0]
  const edited = String(row?.['statement']).replace('"max_duration_s":60', '"max_duration_s":6000')
  node.change('UPDATE access_grant SET statement = ? WHERE id = ?', edited, grant.id)
  const reply = await person.call('POST', '/sessions', { device: 'press-09', process: 'plc' })
  expect([reply.status, reply.body.code]).toEqual([403, 'grant.unapproved'])
})

interface Shown {
  readonly obligations: { readonly ot_level: number; readonly ot_windows: unknown }
  readonly grant?: { readonly statement: { readonly id: string } }
}

test('a device in two-key mode and a grant to write that nobody signed: it goes on reading, and writes under one that was', async () => {
  const identity = await node.device('press-11', { plc: expecting(undefined, 'modbus') })
  await using agent = await attach(node, identity, { listeners: { plc: seen(PLC, 'listener') } })
  agent.answer = (offer, metadata) =>
    'grant' in metadata ? serve(agent, offer, metadata) : offer.refuse('approvers.missing', '')
  const person = await node.person('vlad', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const ask = async (change: object) =>
    await person.ask<Grant>('POST', '/grants', { ...WANTED, device: 'press-11', ...change })
  const sign = async (grant: Grant) => {
    const asked = await approval(oda, grant)
    expect((await answer(asked, own.answer(challengeOf(asked)))).status).toBe(200)
    return grant
  }
  const at = (from: number) => ({ ot_level: 2, ot_windows: [{ unit: 1, from, to: from + 9 }] })
  const shown = () =>
    (agent.opened.splice(0) as unknown as Shown[]).map(({ obligations, grant }) => [
      obligations.ot_level,
      obligations.ot_windows,
      grant?.statement.id,
    ])
  const used = async ({ id }: Grant) =>
    (await person.ask<Grant>('GET', `/grants/${id}`)).first_used_at !== null

  const read = await sign(await ask({ duration_s: 3600 }))
  const unsigned = await ask({ duration_s: 600, ...at(0) })
  await node.admin.ask('POST', `/grants/${unsigned.id}/approve`, { hash: unsigned.hash })
  const session = await openSession(person, 'press-11', 'plc')
  await using client = await Client.dial(node)
  await client.stream(session)
  expect(shown()).toEqual([
    [2, [unsigned.ot_windows], undefined],
    [1, [], read.id],
  ])
  expect(await used(unsigned)).toBe(false)

  const signed = await sign(await ask({ duration_s: 500, ...at(100) }))
  await client.stream(session)
  // It is shown one grant, held to that one alone, and only that one is used.
  expect(shown().at(-1)).toEqual([2, [signed.ot_windows], signed.id])
  expect([await used(unsigned), await used(signed)]).toEqual([false, true])
})

test('what is kept as a signature proves itself, or is none for the policy', async () => {
  const person = await node.person('viki', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await node.device('press-10', { plc: expecting() })
  const grant = await person.ask<Grant>('POST', '/grants', { ...WANTED, device: 'press-10' })
  const asked = await approval(oda, grant)
  expect((await answer(asked, own.answer(challengeOf(asked)))).status).toBe(200)
  const signers = async () => {
    await using thread = await SqliteThread.open(join(node.data, 'store.sqlite'))
    const found = await new SqliteGrantStore(thread).find(grant.id)
    return grantFacts(found!).signers
  }
  expect(await signers()).toHaveLength(1)
  const kept = { key: own.signing, relying_party: { id: 'localhost', origins: [node.origin] } }
  const assertion = others.assertion(challengeOf(asked))
  const forged = JSON.stringify({ ...kept, assertion })
  node.change('UPDATE grant_approval SET signature = ? WHERE grant_id = ?', forged, grant.id)
  expect(await signers()).toEqual([])
})
