/** Passkeys against who would get in by them: each row is one way to try. */
import { beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Ceremony, CeremonyShown, Grant, Passkey } from '#api'
import { SqlitePasskeyStore } from '../../../gateway/store/sqlite/passkeys.ts'
import { softKey, type Bend, type SoftKey } from '../../support/authenticator.ts'
import { send, sha256, TENANT, type Person } from '../../support/node.ts'
import {
  aNode,
  addKey,
  answer,
  approval,
  challengeOf,
  node,
  oda,
  olaf,
  others,
  own,
  post,
  renewed,
  subOf,
  vera,
  WANTED,
} from './around.ts'

aNode()

let from = 0
beforeEach(() => void (from = node.size()))
const since = (code: string) => node.events(from).filter((event) => event.code === code)

const request = async () => await vera.ask<Grant>('POST', '/grants', WANTED)

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
    await renewed()
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
    const second = await approval(oda, grant)
    const signed = own.answer(challengeOf(asked))
    expect((await answer(asked, signed)).status).toBe(200)
    expect((await answer(asked, signed)).body.code).toBe('ceremony.unknown')
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

  test('one’s own request, told before a passkey is asked for', async () => {
    const mine = await oda.ask<Grant>('POST', '/grants', WANTED)
    from = node.size()
    const reply = await oda.call('POST', `/grants/${mine.id}/approval`, {})
    expect([reply.status, reply.body.code]).toEqual([403, 'host.approver_is_requester'])
    expect(since('grant.approve').map(({ text }) => text.includes('"status":"Failure"'))).toEqual([
      true,
    ])
  })

  test('of what waits for no approval any more, told before a passkey is asked for', async () => {
    const grant = await request()
    await oda.ask('POST', `/grants/${grant.id}/reject`, { reason: 'not today' })
    const reply = await oda.call('POST', `/grants/${grant.id}/approval`, {})
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.state'])
  })
})

describe('a reset while a passkey is being added leaves none', () => {
  const started = async (name: string) => {
    const who = await node.person(name, { party: 'staff', roles: ['operator'] })
    const asked = await who.ask<Ceremony>('POST', '/passkeys', { name: 'late' })
    const add = async () => answer(asked, softKey(node.origin).register(challengeOf(asked)))
    const path = `/accounts/${await subOf(who)}/passkeys/remove`
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
    const vanja = await node.person('vanja', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
    const asked = await vanja.call<Ceremony>('POST', '/passkeys', { name: 'x' })
    await node.admin.ask('POST', `/accounts/${await subOf(vanja)}/disable`, {})
    const reply = await post('show', { secret: asked.body.secret })
    expect([reply.status, reply.body.code]).toEqual([404, 'ceremony.unknown'])
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
