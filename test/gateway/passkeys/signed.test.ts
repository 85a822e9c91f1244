/** What a passkey signed goes with its grant: to a device that decides by itself, and into the store, where it proves itself. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Grant } from '#api'
import { checkOpening, type ApproverSet } from '#approval'
import type { Input } from '#policy'
import { grantFacts } from '../../../gateway/facts.ts'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { openSession, TENANT } from '../../support/node.ts'
import { answer as answerPolicy } from '../../support/policy.ts'
import { attach, Client, expecting, PLC, seen, serve } from '../../support/tunnels.ts'
import { aNode, answer, approval, challengeOf, node, oda, others, own, WANTED } from './around.ts'

aNode()

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
