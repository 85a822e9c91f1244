/** An authenticator app at a running gateway: its owner's calls and commands, an administrator's, and what policy makes of it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Account, Enrolling, Grant, Problem, Totps } from '#api'
import { deviceLogin, saveCredentials } from '../../../cli/login/index.ts'
import { listen, run } from '../../cli/run.ts'
import { approveDevice, openBrowser } from '../../support/browser.ts'
import { PASSWORD, personWith, startNode, type Person, type TestNode } from '../../support/node.ts'
import { expecting } from '../../support/tunnels.ts'
import { siteOfOwn } from '../../support/zone.ts'
import { readQr, type App } from './app.ts'

const site = siteOfOwn()
let node: TestNode
let tom: Person
let home: string
beforeAll(async () => {
  node = await startNode({ config: site.config })
  tom = await node.person('tom', { party: 'staff', roles: ['operator'] })
  home = mkdtempSync(join(tmpdir(), 'sallyport-totp-'))
})
afterAll(async () => {
  rmSync(home, { recursive: true })
  site[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

/** Opens the link of an enrolment and confirms it. */
async function confirm(url: string): Promise<App> {
  await using browser = openBrowser(node.anchor)
  const page = await browser.open(`${node.origin}/oidc/totp`)
  const shown = await browser.submit(page, 'Go on', { secret: new URL(url).hash.slice(1) })
  const app = readQr(shown)
  const done = await browser.submit(shown, 'Use this code', { code: app.code(Date.now()) })
  expect(done.status).toBe(200)
  return app
}

/** Signs in with password and code; the step of the first code was taken with it. */
async function again(app: App, { email }: Person): Promise<Person> {
  await using browser = openBrowser(node.anchor)
  const credentials = await deviceLogin({
    gateway: node.origin,
    trust: { anchor: node.anchor },
    onPrompt: ({ completeUrl: url }) => {
      void approveDevice(browser, { url, email, password: PASSWORD }).then(async (page) =>
        browser.submit(page, 'Use this code', { code: app.code(Date.now() + 30_000) }),
      )
    },
  })
  return personWith(node, email, credentials)
}

test('from a terminal: added by a link, listed, taken off by who has just given a code, and all of it recorded', async () => {
  await saveCredentials(join(home, 'credentials'), tom.credentials)
  const { promise: link, resolve } = Promise.withResolvers<string>()
  const from = node.size()
  const adding = listen(
    home,
    (text) => {
      const [, url] = /^open {4}(https:\S+)$/m.exec(text) ?? []
      if (url !== undefined) resolve(url)
    },
    'totp',
    'add',
    'phone',
  )
  const app = await confirm(await link)
  const added = await adding
  expect([added.code, added.out]).toEqual([0, expect.stringContaining('phone added')])
  expect((await run(home, 'totp', 'list')).out).toMatch(/^phone /m)
  // The login is from before, and has shown no second factor.
  const refused = await run(home, 'totp', 'remove')
  expect([refused.code, refused.err]).toEqual([3, expect.stringContaining('login --again')])
  const more = await tom.call<Problem>('POST', '/totp', { name: 'another' })
  expect([more.status, more.body.code]).toEqual([403, 'totp.stale'])

  await using fresh = await again(app, tom)
  expect(await fresh.ask('GET', '/me')).toMatchObject({ methods: ['pwd', 'otp', 'mfa'] })
  await saveCredentials(join(home, 'credentials'), fresh.credentials)
  const removed = await run(home, 'totp', 'remove')
  expect([removed.code, removed.out]).toEqual([0, expect.stringContaining('removed')])
  expect((await run(home, 'totp', 'list')).out).toContain('next: sallyport totp add NAME')
  const told = node.events(from).map(({ text }) => text)
  for (const what of ['"totp:add"', '"totp:remove"'])
    expect(told.filter((text) => text.includes(what))).toHaveLength(1)
})

test('an administrator takes it off whoever lost it, and ends their logins; nobody else does', async () => {
  const ana = await node.person('ana', { party: 'staff', roles: ['operator'] })
  const { url } = await ana.ask<Enrolling>('POST', '/totp', { name: 'lost' })
  await confirm(url)
  const { items } = await node.admin.ask<{ items: Account[] }>(
    'GET',
    `/accounts?email=${ana.email}`,
  )
  const path = `/accounts/${items[0]!.sub}/totp/remove`
  expect((await ana.call('POST', path, {})).status).toBe(403)
  await saveCredentials(join(home, 'credentials'), node.admin.credentials)
  const done = await run(home, 'account', 'reset-totp', ana.email)
  expect([done.code, done.out]).toEqual([0, expect.stringContaining('has no authenticator app')])
  // And what to do instead, where it was not lost: whoever closed it by wrong codes has the password.
  expect(done.out).toContain(`sallyport account renew ${ana.email}`)
  await expect(ana.call('GET', '/totp')).rejects.toThrow('the login has ended')
  await using browser = openBrowser(node.anchor)
  const credentials = await deviceLogin({
    gateway: node.origin,
    trust: { anchor: node.anchor },
    onPrompt: ({ completeUrl: url }) =>
      void approveDevice(browser, { url, email: ana.email, password: PASSWORD }),
  })
  await using back = personWith(node, ana.email, credentials)
  expect((await back.ask<Totps>('GET', '/totp')).items).toEqual([])
})

test('policy takes a code for a second factor in a zone that names `otp`, and in no other', async () => {
  await node.device('press-07', { plc: expecting() })
  const [second, vera, oda] = await Promise.all([
    node.person('second', { party: 'staff', roles: ['admin'] }),
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('oda', { party: 'staff', roles: ['operator'] }),
  ])
  const wanted = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'x' }
  const { id, hash } = await vera.ask<Grant>('POST', '/grants', wanted)
  const app = await confirm((await oda.ask<Enrolling>('POST', '/totp', { name: 'phone' })).url)
  await using coded = await again(app, oda)
  const zone = async (method: string) => {
    const mfa = { required: true, methods: [method], max_age_s: 3600 }
    await site.zone({ mfa }, [node.admin, second])
  }
  const approve = async (who: Person) => {
    const { status, body } = await who.call<Problem>('POST', `/grants/${id}/approve`, { hash })
    return [status, body.denials?.[0]?.code]
  }
  await zone('webauthn')
  expect(await approve(coded)).toEqual([403, 'mfa.stale'])
  await zone('otp')
  expect(await approve(oda)).toEqual([403, 'mfa.stale'])
  expect(await approve(coded)).toEqual([200, undefined])
})
