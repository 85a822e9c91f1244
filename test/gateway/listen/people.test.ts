/** People on a whole node: companies entered by command, logins from outside, and what ends them with their sessions. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Account, Grant, Session } from '#api'
import { deviceLogin, saveCredentials, type Credentials } from '../../../cli/login/index.ts'
import { openBrowser, type Page } from '../../support/browser.ts'
import {
  grantFor,
  openSession,
  personWith,
  startNode,
  until,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { attach, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'
import { run } from '../../cli/run.ts'
import { CLIENT, openCompany, type Company } from '../identity/company.ts'

let node: TestNode
let company: Company
let agent: FakeAgent
let home: string
let oda: Person
const SECRET = 'a secret of thirty-two characters'

beforeAll(async () => {
  node = await startNode()
  company = await openCompany(node, 'acme')
  company.staff.set('w', { email: 'wanda@acme.example', name: 'Wanda', groups: ['press'] })
  company.who = 'w'
  home = mkdtempSync(join(tmpdir(), 'sallyport-people-'))
  writeFileSync(join(home, 'secret'), `${SECRET}\n`, { mode: 0o600 })
  writeFileSync(join(home, 'root.pem'), company.anchor)
  const identity = await node.device('press-07', { plc: expecting() })
  agent = await attach(node, identity, { listeners: { plc: seen(PLC, 'listener') } })
  oda = await node.person('oda', { party: 'staff', roles: ['operator'] })
  await saveCredentials(join(home, 'credentials'), node.admin.credentials)
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
  await company[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

const ADD = (): string[] =>
  [
    ['idp', 'add', 'acme', '--name', 'Acme Robotics', '--issuer', company.issuer],
    ['--client-id', CLIENT, '--secret-file', join(home, 'secret'), '--ca', join(home, 'root.pem')],
    ['--vendor', 'acme', '--domain', 'acme.example', '--group', 'press=press-service'],
  ].flat()

/** Wanda, by her company, in a new browser. */
async function signIn(): Promise<Person> {
  await using browser = openBrowser([node.anchor, company.anchor].join('\n'))
  let walked: Promise<Page> | undefined
  const walk = async (url: string): Promise<Page> => {
    let page = await browser.submit(await browser.open(url), 'Continue')
    page = await browser.submit(page, 'Yes, the code matches')
    page = await browser.submit(page, 'Use my company’s sign-in', { email: 'wanda@acme.example' })
    const [, href = ''] = /href="([^"]*\/via\/[^"]*)"/.exec(page.text) ?? []
    page = await browser.open(new URL(href.replaceAll('&amp;', '&'), page.url))
    for (let hops = 0; hops < 8 && page.headers.has('location'); hops++)
      page = await browser.open(new URL(page.headers.get('location') ?? '', page.url))
    return page
  }
  const credentials: Credentials = await deviceLogin({
    gateway: node.origin,
    trust: { anchor: node.anchor },
    onPrompt({ completeUrl }) {
      walked = walk(completeUrl)
      walked.catch(() => undefined)
    },
  })
  await walked
  return personWith(node, 'wanda@acme.example', credentials)
}

async function sessionOf(vendor: Person): Promise<string> {
  await grantFor(vendor, oda, { device: 'press-07', process: 'plc' })
  return (await openSession(vendor, 'press-07', 'plc')).id
}

async function endOf(id: string): Promise<Session | undefined> {
  const { items } = await node.admin.ask<{ items: Session[] }>('GET', '/sessions')
  return items.find((session) => session.id === id)
}

/** The program is refused, tries to refresh, and is refused that too. */
const ENDED = { code: 'login.expired' }

describe('a company, from its entry to its end', () => {
  test('entered by command, which tells what the company needs, and shows no secret', async () => {
    const added = await run(home, ...ADD())
    expect(added).toMatchObject({ code: 0, err: '' })
    expect(added.out).toContain(`${node.origin}/oidc/idp/acme/callback`)
    expect(added.out).toContain(`${node.origin}/oidc/idp/acme/logout`)
    const again = await run(home, ...ADD())
    expect(again.code).toBe(1)
    expect(again.err).toContain('idp.exists')
    const shown = await run(home, '--json', 'idp', 'show', 'acme')
    expect(JSON.parse(shown.out)).toMatchObject({ id: 'acme', party: 'vendor', vendor: 'acme' })
    const listed = await run(home, 'idp', 'list')
    expect(listed.out).toContain('Acme Robotics')
    for (const { out } of [added, shown, listed]) expect(out).not.toContain(SECRET)
    expect(node.events().some(({ text }) => text.includes(SECRET))).toBe(false)
    expect(node.events().map(({ message }) => message)).toContain(
      'provider of a company added: acme',
    )
  })
  test('its vendor asks, is approved, is inside; the company signs her out: cut, with the reason', async () => {
    await using wanda = await signIn()
    expect(await wanda.ask('GET', '/me')).toMatchObject({ party: 'vendor', vendor: 'acme' })
    const id = await sessionOf(wanda)
    await company.logout('w')
    await until('the session ends', async () => (await endOf(id))?.state === 'ended')
    await expect(wanda.call('GET', '/me')).rejects.toMatchObject(ENDED)
  })
  test('switched off by command: cut, and back when it is on again', async () => {
    await using wanda = await signIn()
    const id = await sessionOf(wanda)
    expect((await run(home, 'idp', 'disable', 'acme')).code).toBe(0)
    await until('the session ends', async () => (await endOf(id))?.state === 'ended')
    await expect(wanda.call('GET', '/me')).rejects.toMatchObject(ENDED)
    expect((await run(home, 'idp', 'enable', 'acme')).out).toContain('again')
    await using back = await signIn()
    expect((await back.call('GET', '/me')).status).toBe(200)
  })
  test('removed by command, which wants a yes', async () => {
    const asked = await run(home, 'idp', 'remove', 'acme')
    expect(asked.code).toBe(2)
    const removed = await run(home, 'idp', 'remove', 'acme', '--yes')
    expect(removed.out).toContain('1 people were disabled')
    expect((await run(home, 'idp', 'show', 'acme')).err).toContain('idp.unknown')
  })
  test.for([
    ['staff and vendor at once', ['--staff']],
    ['a pair without a sign', ['--group', 'press']],
    ['a secret and a signature', ['--signs']],
  ] as const)('%s: a mistake, before anything is sent', async ([, more]) => {
    expect((await run(home, ...ADD(), ...more)).code).toBe(2)
  })
  test('nobody but an administrator may', async () => {
    for (const [method, path] of [
      ['GET', '/idps'],
      ['GET', '/idps/acme'],
      ['POST', '/idps/acme/remove'],
      ['POST', '/idps/acme/disable'],
    ] as const) {
      const answer = await oda.call(method, path, method === 'POST' ? {} : undefined)
      expect([path, answer.status]).toEqual([path, 403])
    }
  })
})

describe('an account', () => {
  test('disabled by command: cut and kept out; enabled: in again', async () => {
    const vera = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'bolts' })
    const id = await sessionOf(vera)
    const done = await run(home, 'account', 'disable', 'vera@bolts.example')
    expect(done).toMatchObject({ code: 0, err: '' })
    await until('the session ends', async () => (await endOf(id))?.state === 'ended')
    await expect(vera.call('GET', '/me')).rejects.toMatchObject(ENDED)
    expect((await run(home, 'account', 'enable', 'vera@bolts.example')).code).toBe(0)
    await expect(vera.call('GET', '/me')).rejects.toMatchObject(ENDED)
  })
  test('the last administrator stays', async () => {
    const refused = await run(home, 'account', 'disable', 'root@plant.example')
    expect(refused.code).toBe(1)
    expect(refused.err).toContain('account.last_admin')
  })
  test('nobody of that address', async () => {
    const refused = await run(home, 'account', 'disable', 'nobody@plant.example')
    expect(refused.err).toContain('account.unknown')
  })
  test('taking access away asks for an operation of its own, not for that of making accounts', () => {
    const asked = node.events().map(({ message }) => message.split(' ').slice(0, 2).join(' '))
    expect(asked).toEqual(
      expect.arrayContaining([
        'account:disable account',
        'account:change account',
        'account:disable idp',
        'idp:change idp',
      ]),
    )
    // Of making: the accounts of this file, and the company, twice.
    expect(asked.filter((act) => act === 'account:create idp')).toHaveLength(2)
  })
  test('accounts come page by page', async () => {
    const seenAccounts: string[] = []
    for (let after: string | null = ''; after !== null;) {
      const page: { items: Account[]; next: string | null } = await node.admin.ask(
        'GET',
        `/accounts?limit=2&after=${after}`,
      )
      expect(page.items.length).toBeLessThanOrEqual(2)
      seenAccounts.push(...page.items.map(({ sub }) => sub))
      after = page.next
    }
    expect(new Set(seenAccounts).size).toBe(seenAccounts.length)
    expect(seenAccounts.length).toBeGreaterThanOrEqual(4)
  })
})

describe('one person with two accounts', () => {
  let first: Person
  let second: Person
  let vendor: Person
  beforeAll(async () => {
    ;[first, second, vendor] = await Promise.all([
      node.person('fay', { party: 'staff', roles: ['operator'] }),
      node.person('fay.private', { party: 'staff', roles: ['operator'] }),
      node.person('vic', { party: 'vendor', roles: ['vendor'], vendor: 'bolts' }),
    ])
  })
  let from = 0
  beforeEach(() => {
    from = node.size()
  })
  const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'service' }

  test('approves once, whichever account it uses', async () => {
    expect((await run(home, 'account', 'link', first.email, second.email)).code).toBe(0)
    const grant = await vendor.ask<Grant>('POST', '/grants', WANTED)
    // Two approvals are wanted, as a zone of two keys has it.
    node.change('UPDATE access_grant SET approvals_asked = 2 WHERE id = ?', grant.id)
    const approve = { hash: grant.hash }
    await first.ask('POST', `/grants/${grant.id}/approve`, approve)
    const again = await second.call('POST', `/grants/${grant.id}/approve`, approve)
    expect([again.status, again.body.code]).toEqual([409, 'grant.person'])
    expect(node.acts(from).at(-1)?.text).toContain('grant.person')
    const after = await oda.ask<Grant>('POST', `/grants/${grant.id}/approve`, approve)
    expect(after.state).toBe('approved')
  })
  test('does not approve what it asked under the other account', async () => {
    const grant = await first.ask<Grant>('POST', '/grants', WANTED)
    const refused = await second.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    expect([refused.status, refused.body.code]).toEqual([403, 'host.approver_is_requester'])
  })
  test('apart again, both count', async () => {
    expect((await run(home, 'account', 'link', second.email)).out).toContain('alone')
    const grant = await first.ask<Grant>('POST', '/grants', WANTED)
    const after = await second.ask<Grant>('POST', `/grants/${grant.id}/approve`, {
      hash: grant.hash,
    })
    expect(after.state).toBe('approved')
  })
  test('an account is not linked to itself', async () => {
    expect((await run(home, 'account', 'link', first.email, first.email)).err).toContain(
      'account.self',
    )
  })
})
