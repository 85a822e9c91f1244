/** Rolling a policy out on a running node: uploaded by one, activated by another, live sessions decided again. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import type { LoggedDecision, PolicyImpact, PolicyStatus, WhoCan } from '#api'
import { saveCredentials } from '../../../cli/login/index.ts'
import { findOpa, processEnvironment } from '../../../policy/toolchain/opa.ts'
import { hashOf } from '../../../gateway/policy/record.ts'
import { run } from '../../cli/run.ts'
import {
  grantFor,
  openSession,
  startNode,
  until,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { attach, expecting, type FakeAgent, PLC, seen } from '../../support/tunnels.ts'

const opa = await findOpa(processEnvironment())
const folder = mkdtempSync(join(tmpdir(), 'sallyport-rollout-'))
const data = mkdtempSync(join(tmpdir(), 'sallyport-rollout-node-'))
const key = newSigningKey()
const stranger = newSigningKey()
const builtin = untrusted(readFileSync(BUILTIN_BUNDLE))
let node: TestNode
let second: Person
let vendor: Person
let agent: FakeAgent

/** What this site tells people to do, where the product would say something else. */
const RING = 'Ring the shift leader of hall 2 – she approves.'
const CALL = 'Call the plant.'

interface Site {
  site: { zones: { default: { approvals: number; session_bytes: number } } }
}

/** The built-in rules over changed site data, signed. */
function release(
  revision: string,
  seq: number,
  change: (site: Site['site']) => void = () => undefined,
  signer = key,
): string {
  const files = new Map([...builtin].filter(([name]) => !name.startsWith('vectors/')))
  const text = (name: string) => new TextDecoder().decode(files.get(name))
  const manifest = JSON.parse(text('.manifest')) as {
    revision: string
    metadata: { sallyport: { next?: object } }
  }
  manifest.revision = revision
  manifest.metadata.sallyport.next = { 'grant.unapproved': RING, 'grant.none': CALL }
  const document = JSON.parse(text('data.json')) as Site
  change(document.site)
  files.set('.manifest', Buffer.from(JSON.stringify(manifest)))
  files.set('data.json', Buffer.from(JSON.stringify(document)))
  const { archive } = signRelease(files, { pem: signer.privateKey, seq, iat: 1 })
  const path = join(folder, `${revision}-${seq}.tar`)
  writeFileSync(path, archive)
  return path
}
const twoApprovers = (site: Site['site']) => void (site.zones.default.approvals = 2)

async function home(person: Person, name: string): Promise<string> {
  const place = join(folder, name)
  await saveCredentials(join(place, 'credentials'), person.credentials)
  return place
}

async function start(): Promise<TestNode> {
  writeFileSync(join(folder, 'trust.pub'), key.publicKey)
  const config = `policy:\n  trust: [${JSON.stringify(join(folder, 'trust.pub'))}]\n`
  return await startNode({ data, config })
}

beforeAll(async () => {
  node = await start()
  second = await node.person('second', { party: 'staff', roles: ['admin', 'engineer'] })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'press-makers' })
  const device = await node.device('press-07', { plc: expecting() })
  agent = await attach(node, device, { listeners: { plc: seen(PLC, 'listener') } })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
  for (const path of [folder, data]) rmSync(path, { recursive: true, force: true })
})
const status = () => node.admin.ask<PolicyStatus>('GET', '/policy')

test('a node comes up with what it was built with', async () => {
  expect(await status()).toMatchObject({
    source: 'builtin',
    seq: 0,
    high_water: 0,
    candidate: null,
    last_cuts: null,
    journal: { state: 'OK' },
  })
})

test('what is asked for too early is told with what comes first', async () => {
  const admin = await home(node.admin, 'admin')
  const pushed = await run(admin, 'policy', 'push', folder)
  expect([pushed.code, pushed.err]).toEqual([
    2,
    expect.stringMatching(/is a folder\n[^]*next {2}sallyport policy sign/),
  ])
  const tried = await run(admin, 'policy', 'try')
  expect([tried.code, tried.err]).toEqual([
    1,
    expect.stringMatching(/policy\.trial[^]*next {2}upload one with sallyport policy push/),
  ])
})

describe('what is refused, the old policy still deciding', () => {
  const rows: [string, () => string, RegExp][] = [
    [
      'signed by nobody we trust',
      () => release('strange', 1, undefined, stranger),
      /bundle\.key[^]*next {2}name its public key under policy\.trust in the configuration/,
    ],
    [
      'a bit turned on its way',
      () => {
        const path = release('turned', 1)
        const bytes = readFileSync(path)
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
        writeFileSync(path, bytes)
        return path
      },
      /bundle\./,
    ],
    [
      'site data without a zone’s approvals',
      () =>
        release('incomplete', 1, (site) => {
          delete (site.zones.default as Partial<Site['site']['zones']['default']>).approvals
        }),
      /data\.schema/,
    ],
    [
      'no bundle at all',
      () => join(folder, 'trust.pub'),
      /bundle\.tar[^]*next {2}this is no bundle/,
    ],
  ]
  test.for(rows)('%s', async ([, make, code]) => {
    const ran = await run(await home(node.admin, 'admin'), 'policy', 'push', make())
    expect(ran.code).toBe(1)
    expect(ran.err).toMatch(code)
    expect(await status()).toMatchObject({ seq: 0, candidate: null })
  })

  test('a vendor uploads nothing and reads nothing', async () => {
    expect((await vendor.call('GET', '/policy')).status).toBe(403)
    expect((await vendor.call('GET', '/policy/bundle')).status).toBe(403)
    expect((await vendor.call('POST', '/policy/rollback', {})).status).toBe(403)
  })
})

describe('rolled out', () => {
  test('impact says who goes on with less, and of what', async () => {
    const grant = await grantFor(vendor, node.admin, { device: 'press-07', process: 'plc' })
    const opened = await openSession(vendor, 'press-07', 'plc')
    const place = await home(node.admin, 'admin')
    const smaller = release('smaller', 1, ({ zones }) => {
      zones.default.session_bytes = 1_000_000
    })
    const told = await run(place, 'policy', 'impact', smaller)
    expect(told.out).toContain('revision smaller, seq 1, will cut 0 of 1 live sessions')
    expect(told.out).toContain('1 of those that stay may do less; 0 of their connections are cut')
    expect(told.out).toMatch(
      new RegExp(`${opened.id} .* max_bytes 1000000 \\(was 268435456\\) +0$`, 'm'),
    )
    await node.admin.ask('POST', `/grants/${grant.id}/revoke`, { reason: 'the test is over' })
  })

  test('push shows whom it would cut and what it would turn; activation cuts; why says why', async () => {
    await grantFor(vendor, node.admin, { device: 'press-07', process: 'plc' })
    const session = await openSession(vendor, 'press-07', 'plc')
    const bundle = release('strict-1', 1, twoApprovers)
    const pushed = await run(await home(node.admin, 'admin'), 'policy', 'push', bundle)
    expect(pushed.out).toContain('revision strict-1, seq 1, will cut 1 of 1 live sessions')
    expect(pushed.out).toMatch(
      new RegExp(`${session.id} +press-07 +plc +vera.* grant\\.unapproved`),
    )
    expect(pushed.out).toMatch(/decisions from \d{4}-\d\d-\d\dT[\d:.]+Z on/)
    expect(pushed.out).toMatch(/2 +newly_denied +session\.open +vera.* default +grant\.unapproved/)
    expect(pushed.out).toMatch(
      /next: sallyport policy activate [0-9a-f]{64}, by another person where/,
    )
    const digest = (await status()).candidate?.digest ?? ''
    const waits = await run(await home(node.admin, 'admin'), 'policy', 'status')
    expect(waits.out).toContain(`${digest}, from ${node.admin.email}`)

    const done = await run(await home(second, 'second'), 'policy', 'activate', digest)
    expect(done.code).toBe(0)
    expect(done.out).toMatch(new RegExp(`in force +strict-1[^]*cut ${session.id} in [\\d.]+ ms`))
    expect(await status()).toMatchObject({
      revision: 'strict-1',
      seq: 1,
      high_water: 1,
      candidate: null,
    })
    const taken = (await status()).last_cuts
    expect(taken).toMatchObject({ revision: 'strict-1', sessions: 1, connections: 0 })
    // The one that was cut is the median and the slowest.
    expect(done.out).toContain(`cut ${session.id} in ${taken?.p50_ms?.toFixed(1)} ms`)
    expect(taken?.slowest_ms).toBe(taken?.p50_ms)
    const told = await run(await home(node.admin, 'admin'), 'policy', 'status')
    expect(told.out).toMatch(
      /^last change cut +1 sessions, 0 .*strict-1: p50 [\d.]+ ms, slowest [\d.]+ ms$/m,
    )
    const events = node.events()
    const activation = events.find(
      ({ code, message }) => code === 'policy.activate' && message.includes('strict-1'),
    )
    const end = events.find(
      ({ code, idx }) => code === 'session.end' && idx > (activation?.idx ?? 1e9),
    )
    expect(end?.text).toContain('policy_recheck')
    // The decision it was opened under, the one that ended it, and how long that took.
    const ended = end?.event['unmapped'] as
      | { sallyport: { decisions: { id: string }[] } }
      | undefined
    const decisions = ended?.sallyport.decisions ?? []
    expect(decisions[0]?.id).toBe(session.decision_id)
    expect(decisions.at(-1)).toMatchObject({
      revision: 'strict-1',
      codes: ['grant.unapproved'],
    })
    expect(decisions.at(-1)?.id).not.toBe(session.decision_id)
    expect(end?.text).toMatch(/"time_to_cut_ms":\d+/)
    expect(activation?.text).toContain(digest)
    // Or a full disk would refuse it: spendOf pays for what staff do.
    expect(activation?.text).toContain('"party":"staff"')

    const refused = await vendor.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
    expect(refused.body.code).toBe('grant.unapproved')
    expect(refused.body.next_step).toBe(RING)
    const connecting = await run(await home(vendor, 'vera'), 'connect', 'press-07/plc', '--stdio')
    expect(connecting.err).toMatch(/grant\.unapproved[^]*next {2}Ring the shift leader of hall 2/)
    // What it says to do can be done: an approved grant takes no further approval.
    expect(refused.body.denials?.[0]).toMatchObject({ remedy: 'request_grant' })
    const id = refused.body.decision_id ?? ''
    const own = await run(await home(vendor, 'vera'), 'policy', 'why', id)
    expect(own.out).toMatch(/decision +session\.open: challenge/)
    expect(own.out).toContain('not  grant.unapproved')
    expect(own.out).toContain(RING)
    expect((await vendor.ask<LoggedDecision>('GET', `/decisions/${id}`)).input).toBeNull()
    const theirs = await node.admin.ask<LoggedDecision>('GET', `/decisions/${id}`)
    expect(theirs.input).toMatchObject({ device: { id: 'press-07' }, action: 'session.open' })
  })

  test('what is in force is not pushed again: that is said, and nothing is there to activate', async () => {
    const admin = await home(node.admin, 'admin')
    const before = node.size()
    for (const more of [[], ['--activate', '--yes']]) {
      const again = await run(admin, 'policy', 'push', join(folder, 'strict-1-1.tar'), ...more)
      expect([again.code, again.out]).toEqual([
        0,
        'revision strict-1, seq 1, is in force already\nnothing was uploaded, and nothing is to be activated\n',
      ])
    }
    expect((await status()).candidate).toBeNull()
    const since = node.events().filter(({ idx }) => idx >= before)
    expect(since.filter(({ code }) => code.startsWith('policy.upload'))).toEqual([])
    const digest = (await status()).bundle_digest ?? ''
    for (const who of [node.admin, second]) {
      const place = await home(who, who === second ? 'second' : 'admin')
      const brought = await run(place, 'policy', 'activate', digest)
      expect([brought.code, brought.out]).toEqual([
        0,
        'revision strict-1 is in force already\nnothing was changed\n',
      ])
      const machine = await run(place, '--json', 'policy', 'activate', digest)
      expect(JSON.parse(machine.out)).toMatchObject({ already: true, revision: 'strict-1', digest })
    }
    expect((await vendor.call('POST', '/policy/activate', { digest })).status).toBe(403)
    expect(node.events(before).filter(({ code }) => code === 'policy.activate')).toEqual([])
    const looked = await run(admin, 'policy', 'impact', join(folder, 'strict-1-1.tar'))
    expect(looked.out).toMatch(/^revision strict-1, seq 1, is in force already\n.* will cut 0 of/)
    const nowhere = await run(admin, 'policy', 'look')
    expect([nowhere.code, nowhere.err]).toEqual([1, expect.stringMatching(/policy\.source/)])
  })

  test('the decision log leaves without addresses, each page an event; a vendor gets none', async () => {
    const from = node.size()
    const told = await run(await home(node.admin, 'admin'), 'policy', 'decisions', '--since', '1h')
    const lines = told.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object)
    expect(lines).toContainEqual(
      expect.objectContaining({
        path: 'sallyport/session/open/decision',
        erased: expect.arrayContaining(['/input/subject/email']) as unknown,
      }),
    )
    expect(told.out).not.toContain(vendor.email)
    expect(told.err).toContain(`${lines.length} decisions`)
    const calls = node.events(from).filter(({ code }) => code === 'admin.call')
    expect(calls.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^audit:read decisions .* allowed$/),
    ])
    expect((await vendor.call('GET', '/decisions?from=0')).status).toBe(403)

    // A later run goes on where that one ended, and has what was decided meanwhile and nothing else.
    const place = /--after (\d+\.\d+)/.exec(told.err)?.[1] ?? ''
    const later = await run(
      await home(node.admin, 'admin'),
      'policy',
      'decisions',
      '--after',
      place,
    )
    const ids = later.out.trim().split('\n')
    expect(ids).toContainEqual(expect.stringContaining('sallyport/admin/api/decision'))
    expect(lines).not.toContainEqual(expect.objectContaining(JSON.parse(ids[0] ?? '') as object))
    const beyond = await node.admin.call('GET', '/decisions?after=99999999.0')
    expect([beyond.status, beyond.body.code]).toEqual([404, 'decision.unknown'])
    for (const query of ['', '?from=0&after=0.0', '?after=1', '?from=9007199254740991'])
      expect((await node.admin.call('GET', `/decisions${query}`)).status).toBe(400)
  })

  test('somebody else’s decision does not exist for a vendor', async () => {
    const { decision_id: id = '' } = (
      await second.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
    ).body
    const answer = await vendor.call('GET', `/decisions/${id}`)
    expect([answer.status, answer.body.code]).toEqual([404, 'decision.unknown'])
  })

  describe('without a grant a vendor learns nothing of what is there', () => {
    const told = async (device: string, process: string) => {
      const refused = await vendor.call('POST', '/sessions', { device, process })
      const id = refused.body.decision_id ?? ''
      const shown = await vendor.call<LoggedDecision>('GET', `/decisions/${id}`)
      const alike = ({ text }: { text: string }) =>
        text
          .replaceAll(id, 'ID')
          .replace(/"request_id":"[^"]*"/, '"request_id":"R"')
          .replace(/"timestamp":"[^"]*"/, '"timestamp":"T"')
      return { id, refused: alike(refused), shown: alike(shown), body: shown.body }
    }
    test('what exists and what does not have one answer, refused and looked back at', async () => {
      await node.device('press-hidden', { plc: expecting() })
      const there = await told('press-hidden', 'plc')
      const nowhere = await told('press-nowhere', 'plc')
      expect(there.refused).toBe(nowhere.refused)
      expect(there.shown).toBe(nowhere.shown)
      expect(there.body).toMatchObject({
        effect: 'deny',
        zone: null,
        input: null,
        obligations: null,
      })
      expect(there.body.why).toMatchObject([{ code: 'grant.none', next_step: CALL }])
      const staff = (id: string) => node.admin.ask<LoggedDecision>('GET', `/decisions/${id}`)
      expect((await staff(there.id)).zone).toBe('default')
      expect((await staff(nowhere.id)).zone).toBeNull()
    })
  })

  test('one person does not ask about decisions without end', async () => {
    const asked = await node.person('asker', {
      party: 'vendor',
      roles: ['vendor'],
      vendor: 'press-makers',
    })
    const id = `d_${'0'.repeat(26)}`
    const asking = Array.from({ length: 50 }, () => asked.call('GET', `/decisions/${id}`))
    const codes = new Set((await Promise.all(asking)).map(({ body }) => body.code))
    expect(codes).toEqual(new Set(['decision.unknown', 'decision.limit']))
    expect((await node.admin.call('GET', `/decisions/${id}`)).body.code).toBe('decision.unknown')
  })

  test('an older bundle, and another one with the same number', async () => {
    for (const path of [release('again', 1), release('older', 1)]) {
      const ran = await run(await home(node.admin, 'admin'), 'policy', 'push', path)
      expect(ran.err).toContain('bundle.rollback')
    }
  })

  test('who can: everybody, and what stops them', async () => {
    const answer = await node.admin.ask<WhoCan>(
      'GET',
      '/policy/who-can?device=press-07&process=plc',
    )
    const vera = answer.items.find(({ person }) => person === vendor.email)
    expect(vera).toMatchObject({ effect: 'challenge', codes: ['grant.unapproved'] })
    expect(answer.items.every(({ effect }) => effect !== 'allow')).toBe(true)
    const table = await run(await home(node.admin, 'admin'), 'policy', 'who-can', 'press-07/plc')
    expect(table.out).toMatch(/^PERSON +PARTY/m)
  })

  test('impact keeps nothing', async () => {
    const path = release('open-1', 2)
    const found = await run(await home(node.admin, 'admin'), '--json', 'policy', 'impact', path)
    const impact = JSON.parse(found.out) as PolicyImpact
    expect(Date.parse(impact.past?.from ?? '')).toBeGreaterThan(0)
    expect(impact.past?.turned).toContainEqual(
      expect.objectContaining({
        change: 'newly_allowed',
        point: 'session.open',
        codes: expect.arrayContaining(['grant.unapproved']) as unknown,
      }),
    )
    expect(await status()).toMatchObject({ revision: 'strict-1', candidate: null })
  })

  test('on trial: a shadow changes nothing, a canary answers, its end gives the old answer back', async () => {
    const place = await home(node.admin, 'admin')
    const ask = () => vendor.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
    expect((await run(place, 'policy', 'try')).err).toContain('policy.trial')
    await run(place, 'policy', 'push', release('open-2', 3))
    const digest = (await status()).candidate?.digest ?? ''
    expect((await run(place, 'policy', 'try', digest, '--shadow')).out).toMatch(
      /on trial +open-2, as a shadow/,
    )
    expect((await ask()).status).toBe(403)
    await until('the shadow has looked', async () =>
      (await run(place, 'policy', 'try')).out.includes('newly_allowed'),
    )
    const canary = await run(place, 'policy', 'try', digest, '--percent', '100')
    expect(canary.out).toMatch(
      /on trial +open-2, for 100 % of all pairs of a person and a device\nwhere +gateway \S+ alone: another one/,
    )
    const opened = await ask()
    expect(opened.status).toBe(201)
    const ended = await run(place, 'policy', 'try', '--end')
    expect(ended.out).toMatch(/state +ended: ended by /)
    const { id } = opened.body as unknown as { id: string }
    await until(
      'what the canary let in has ended',
      async () => (await vendor.ask<{ state: string }>('GET', `/sessions/${id}`)).state === 'ended',
    )
    expect((await ask()).status).toBe(403)
    expect(await status()).toMatchObject({ revision: 'strict-1', seq: 1 })
  })

  test('without an earlier good one there is no way back, and that is said', async () => {
    const ran = await run(await home(node.admin, 'admin'), 'policy', 'rollback')
    expect(ran.err).toMatch(/no earlier policy has proved good[^]*higher --seq/)
  })

  test.skipIf(opa === undefined)('explain: the failed expression with its line', async () => {
    const refused = await vendor.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
    const place = await home(node.admin, 'admin')
    const ran = await run(place, 'policy', 'explain', refused.body.decision_id ?? '')
    expect(ran.out).toMatch(/deny {2}_grant_denial {2}policy\/default\/access\.rego:\d+/)
    expect(ran.out).toMatch(
      /failed {2}policy\/default\/access\.rego:\d+ {2}count\(.*_approvals_needed/,
    )
  })
})

test('a restart brings back what was in force; a changed file does not get in', async () => {
  await agent[Symbol.asyncDispose]()
  await node.stop()
  for (const ring of ['acts', 'flow']) {
    const text = readFileSync(join(data, 'decisions', `${ring}-000000000000.jsonl`), 'utf8')
    const lines = text.split('\n').slice(0, -1)
    const anchor = node.events().findLast((one) => one.text.includes(`decisions/${ring}`))
    expect(anchor?.message).toBe(`decision log ${ring}: ${lines.length} records`)
    expect(anchor?.text).toContain(hashOf(lines.at(-1) ?? ''))
  }
  node = await startNode({
    data,
    bare: true,
    config: `policy:\n  trust: [${JSON.stringify(join(folder, 'trust.pub'))}]\n`,
  })
  expect(node.events().findLast(({ code }) => code === 'policy.activate')?.text).toContain(
    'strict-1',
  )
  await node.stop()
  const active = join(data, 'policy', 'active.tar')
  const bytes = readFileSync(active)
  bytes[700] = (bytes[700] ?? 0) ^ 1
  writeFileSync(active, bytes)
  node = await startNode({
    data,
    bare: true,
    config: `policy:\n  trust: [${JSON.stringify(join(folder, 'trust.pub'))}]\n`,
  })
  const last = await until('the node says that it denies', () =>
    node.events().findLast(({ code }) => code === 'policy.activate'),
  )
  expect(last.message).toBe('no policy could be verified: everything is denied')
})
