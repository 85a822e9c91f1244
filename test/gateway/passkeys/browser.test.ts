/** Passkeys as people meet them: a real browser, its authenticator, the pages of a running gateway. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Ceremony, Enrolling, Grant, MadeInvitation, Me, Passkey } from '#api'
import { checkSignedGrant, readSignedGrant } from '#approval'
import { configFrom } from '#agent'
import { writeConfig } from '../../../agent-tunnel/agent/config.ts'
import { saveCredentials } from '../../../cli/login/index.ts'
import { listen, run, type Ran } from '../../cli/run.ts'
import { noChromium, openChromium, type Chromium, type Tab } from '../../support/chromium.ts'
import { waitingLogin } from '../../support/login.ts'
import {
  PASSWORD,
  personWith,
  startNode,
  TENANT,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { readQr } from '../totp/app.ts'
import { expecting } from '../../support/tunnels.ts'

const name = noChromium === undefined ? 'in Chromium' : `in Chromium (${noChromium})`

describe.skipIf(noChromium !== undefined)(name, () => {
  let node: TestNode
  let chromium: Chromium
  let tab: Tab
  let oda: Person
  let vera: Person

  beforeAll(async () => {
    node = await startNode()
    await node.device('press-07', { plc: expecting() })
    ;[chromium, oda, vera] = await Promise.all([
      openChromium(node.origin),
      node.person('oda', { party: 'staff', roles: ['operator'] }),
      node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    ])
    tab = await chromium.tab()
    // Where many tests run at once, a browser takes its time to start.
  })
  afterAll(async () => {
    await chromium[Symbol.asyncDispose]()
    await node[Symbol.asyncDispose]()
  })

  const text = (selector: string) =>
    tab.run<string>(`document.querySelector(${JSON.stringify(selector)}).innerText`)
  const visible = (id: string) => `document.getElementById('${id}')?.hidden === false`
  /** A sign-in up to the press that sends the address and the password. */
  const typed = async ({ email }: Person) => {
    const { url, login } = await waitingLogin(node)
    await tab.open(url)
    await tab.click('button')
    await tab.until('the code', "document.querySelector('button[name=confirm]') !== null")
    await tab.click('button[name=confirm]')
    await tab.until('the sign-in', "document.querySelector('#password') !== null")
    await tab.type('#email', email)
    await tab.type('#password', PASSWORD)
    return { login }
  }
  /** Opens the link of a question and answers it; gives what the page says then. */
  const answer = async ({ url }: Ceremony): Promise<string> => {
    await tab.open(url)
    await tab.until('the question', visible('ceremony'))
    await tab.click('#go')
    await tab.until('an answer', `${visible('done')} || ${visible('problem')}`)
    return (await tab.run<boolean>(visible('done'))) ? text('#done') : text('#problem')
  }

  test('a passkey is added, and its link is good once', async () => {
    const asked = await oda.ask<Ceremony>('POST', '/passkeys', { name: 'laptop' })
    expect(await answer(asked)).toContain('The passkey “laptop” is yours now')
    const { items } = await oda.ask<{ items: Passkey[] }>('GET', '/passkeys')
    expect(items).toMatchObject([{ name: 'laptop', alg: 'ES256', used_at: null }])
    expect(await tab.authenticator.credentials()).toHaveLength(1)
    await tab.open(asked.url)
    await tab.until('a refusal', visible('problem'))
    expect(await text('#problem')).toContain('ceremony.unknown')
  })

  test('a grant is approved by it, and the approval is proven without the gateway', async () => {
    const wanted = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: '<b>x</b>' }
    const grant = await vera.ask<Grant>('POST', '/grants', wanted)
    const asked = await oda.ask<Ceremony>('POST', `/grants/${grant.id}/approval`, {})
    await tab.open(asked.url)
    await tab.until('the question', visible('ceremony'))
    const shown = await text('#facts')
    expect(shown).toContain('press-07')
    expect(shown).toContain('<b>x</b>')
    expect(shown).toContain(grant.hash)
    await tab.click('#go')
    await tab.until('the approval', visible('done'))
    expect(await text('#done')).toContain('1 of 1 approvals')
    const after = await oda.ask<Grant>('GET', `/grants/${grant.id}`)
    expect(after).toMatchObject({ state: 'approved', approvals: [{ signed: true }] })
    const file = readSignedGrant(await oda.ask('GET', `/grants/${grant.id}/signed`))!
    expect(checkSignedGrant(file)).toMatchObject({ hash: grant.hash, proven: true })
    const edited = { ...file, statement: { ...file.statement, max_duration_s: 61 } }
    expect(checkSignedGrant(edited)).toMatchObject({
      proven: false,
      approvals: [{ state: 'refused', fault: 'assertion.challenge' }],
    })
  })

  test('a step up puts the passkey and the time into the sign-in as it stands', async () => {
    const before = await oda.ask<Me>('GET', '/me')
    expect(before.methods).toEqual(['pwd'])
    expect(await answer(await oda.ask('POST', '/step-up', {}))).toContain('accepted')
    const after = await oda.ask<Me>('GET', '/me')
    expect(after.methods).toEqual(['pwd', 'webauthn'])
    expect(after.authenticated_at).toBeGreaterThanOrEqual(before.authenticated_at)
  })

  test('while the network changes its question is late, and its answer is given again', async () => {
    const asked = await oda.ask<Ceremony>('POST', '/step-up', {})
    await tab.failNext('*/ceremonies/show')
    await tab.open(asked.url)
    await tab.until('the question', visible('ceremony'))
    await tab.failNext('*/ceremonies/answer')
    await tab.click('#go')
    await tab.until('what was wrong', visible('problem'))
    expect(await text('#problem')).toContain('The gateway could not be reached. Try again')
    await tab.click('#go')
    await tab.until('an answer', visible('done'))
  })

  test('without the person’s verification nothing is accepted', async () => {
    const asked = await oda.ask<Ceremony>('POST', '/step-up', {})
    await tab.authenticator.verified(false)
    try {
      expect(await answer(asked)).toContain('No passkey answered')
    } finally {
      await tab.authenticator.verified(true)
    }
    // It was never answered, so it still can be.
    await tab.click('#go')
    await tab.until('the answer', visible('done'))
  })

  describe('from a terminal', () => {
    let home: string
    beforeAll(async () => {
      home = mkdtempSync(join(tmpdir(), 'sallyport-passkeys-'))
      await saveCredentials(join(home, 'credentials'), oda.credentials)
    })
    afterAll(() => rmSync(home, { recursive: true }))

    /** Runs a command that prints a link, and answers behind it. */
    const answered = async (...args: string[]): Promise<Ran> => {
      const { promise: link, resolve } = Promise.withResolvers<string>()
      const heard = (text: string) => {
        const [, url] = /^open {4}(https:\S+)$/m.exec(text) ?? []
        if (url !== undefined) resolve(url)
      }
      const running = listen(home, heard, ...args)
      await tab.open(await link)
      await tab.until('the question', visible('ceremony'))
      await tab.click('#go')
      await tab.until('the answer', visible('done'))
      return running
    }

    test('a grant is approved, exported and proven, and an edited file is not', async () => {
      const wanted = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'x' }
      const grant = await vera.ask<Grant>('POST', '/grants', wanted)
      const approved = await answered('approve', grant.id)
      expect([approved.code, approved.err]).toEqual([0, expect.stringContaining('waiting')])
      expect(approved.out).toContain(`${grant.id} is approved`)
      const file = join(home, 'grant.json')
      writeFileSync(file, (await run(home, 'grant', 'export', grant.id)).out)
      const keys = join(home, 'approvers.txt')
      const listed = await run(home, 'passkey', 'list', '--json')
      const [{ spki, id }] = JSON.parse(listed.out) as [Passkey]
      writeFileSync(keys, `# Oda\n${spki}\n`)
      const proven = await run(home, 'grant', 'verify', file, '--keys', keys)
      expect([proven.code, proven.out]).toEqual([0, expect.stringContaining('proven: every')])
      writeFileSync(keys, '')
      const unpinned = await run(home, 'grant', 'verify', file, '--keys', keys)
      expect([unpinned.code, unpinned.out]).toEqual([1, expect.stringContaining('key.unpinned')])
      writeFileSync(
        file,
        readFileSync(file, 'utf8').replace('"max_duration_s": 60', '"max_duration_s": 61'),
      )
      const edited = await run(home, 'grant', 'verify', file)
      expect([edited.code, edited.out]).toEqual([1, expect.stringContaining('assertion.challenge')])
      writeFileSync(file, '{}')
      expect((await run(home, 'grant', 'verify', file)).code).toBe(2)

      // The owner of a device pins this key, and its holder signs the set that follows.
      const set = {
        v: 1,
        tenant: TENANT,
        device: 'press-07',
        seq: 1,
        quorum: 1,
        relying_party: { id: 'localhost', origins: [node.origin] },
        approvers: [{ person: 'Oda', credential: id, key: { alg: 'ES256', spki } }],
        modbus: [],
      }
      const [first, next, signature] = ['first', 'next', 'oda'].map((one) =>
        join(home, `${one}.json`),
      ) as [string, string, string]
      writeFileSync(first, JSON.stringify(set))
      writeFileSync(next, JSON.stringify({ ...set, seq: 2, modbus: ['plc'] }))
      const data = ['--data', join(home, 'device')]
      const targets = ['plc=tcp:127.0.0.1:1502']
      const setup = {
        gateway: node.origin,
        device: 'press-07',
        rootSha256: 'ab'.repeat(32),
        targets,
      }
      mkdirSync(join(home, 'device'))
      writeConfig(configFrom(setup, join(home, 'device')))
      const pinned = await run(home, 'agent', 'approvers', 'pin', first, ...data)
      expect([pinned.code, pinned.out]).toEqual([0, expect.stringContaining('Oda ES256')])
      expect((await answered('approvers', 'sign', next)).code).toBe(0)
      writeFileSync(signature, await text('#signature'))
      const rotate = ['agent', 'approvers', 'rotate', next, '--signature', signature, ...data]
      expect((await run(home, ...rotate)).code).toBe(0)
      expect((await run(home, ...rotate)).err).toContain('approvers.sequence')
      expect((await run(home, 'agent', 'approvers', 'show', ...data)).out).toMatch(/number +2/)
    })

    test('a step up', async () => {
      expect((await answered('step-up')).code).toBe(0)
    })
  })

  test('signing in takes the password and then the passkey', async () => {
    const signingIn = await typed(oda)
    // On a slow line the page is there before its script: a press in between sends no empty answer.
    const letGo = await tab.holdBack('*/passkey.js')
    await tab.click('button[value=login]')
    await tab.until('the second factor', "document.querySelector('#second') !== null")
    await tab.run("document.querySelector('#go').click()")
    await letGo()
    await tab.click('#go')
    await tab.until('the end', "document.title.startsWith('You are signed in')")
    await using again = personWith(node, oda.email, await signingIn.login)
    expect((await again.ask<Me>('GET', '/me')).methods).toEqual(['pwd', 'webauthn'])
  })

  test('an authenticator app is added by its code, and asked for after the password', async () => {
    const tom = await node.person('tom', { party: 'staff', roles: ['operator'] })
    const { url } = await tom.ask<Enrolling>('POST', '/totp', { name: 'phone' })
    await tab.open(url)
    // The code is one long path: a page that is still on its way has the picture, and not yet what is in it.
    await tab.until(
      'the enrolment',
      "document.readyState === 'complete' && document.querySelector('svg.qr path') !== null",
    )
    // Whatever the colours of the page, the code is dark on white, and the secret is in no address.
    const colours = `[getComputedStyle(document.querySelector('svg.qr')).backgroundColor, getComputedStyle(document.querySelector('svg.qr path')).fill, location.href]`
    expect(await tab.run(colours)).toEqual([
      'rgb(255, 255, 255)',
      'rgb(0, 0, 0)',
      `${node.origin}/oidc/totp`,
    ])
    const app = readQr({ text: await tab.run<string>('document.documentElement.outerHTML') })
    await tab.type('#code', app.code(Date.now()))
    await tab.click('button[value=code]')
    await tab.until('the end', "document.title.startsWith('The app is yours now')")

    await tab.open(`${node.origin}/oidc/sign-out`)
    if (await tab.run<boolean>("document.querySelector('button') !== null")) {
      await tab.click('button')
      await tab.until('signing out', "document.title.startsWith('You are signed out')")
    }
    const signingIn = await typed(tom)
    await tab.click('button[value=login]')
    await tab.until('the second factor', "document.title.startsWith('Confirm with a code')")
    // The step of the first code was taken with it.
    await tab.type('#code', app.code(Date.now() + 30_000))
    await tab.click('button[value=code]')
    await tab.until('the end', "document.title.startsWith('You are signed in')")
    await using again = personWith(node, tom.email, await signingIn.login)
    expect((await again.ask<Me>('GET', '/me')).methods).toEqual(['pwd', 'otp', 'mfa'])
  })

  test('a guest comes in by a link and a passkey, and later by the passkey alone', async () => {
    const guest = await chromium.tab()
    // Tabs share their cookies: whoever signed in before is out first.
    const signOut = async (): Promise<void> => {
      await guest.open(`${node.origin}/oidc/sign-out`)
      if (!(await guest.run<boolean>("document.querySelector('button') !== null"))) return
      await guest.click('button')
      await guest.until('signing out', "document.title.startsWith('You are signed out')")
    }
    await signOut()
    const asked = { name: 'Gil Guest', vendor: 'acme' }
    const { url } = await node.admin.ask<MadeInvitation>('POST', '/invitations', asked)
    await guest.open(url)
    await guest.until('the invitation', "document.title.startsWith('Welcome, Gil Guest')")
    expect(await guest.run<string>('location.href')).toBe(`${node.origin}/oidc/invitation`)
    await guest.click('#go')
    await guest.until('coming in', "document.title.startsWith('You are in')")
    expect(await guest.authenticator.credentials()).toHaveLength(1)
    // The link once more, from the history or by somebody else: it says what became of it.
    await signOut()
    await guest.open(url)
    await guest.until('a refusal', "document.body.innerText.includes('invitation.used')")

    const { url: prompt, login } = await waitingLogin(node)
    await guest.open(prompt)
    await guest.click('button')
    await guest.until('the comparison', "document.title.startsWith('Did you ask')")
    await guest.click('button[name=confirm]')
    await guest.until('the sign-in', "document.title.startsWith('Sign in -')")
    await guest.click('button[value=key]')
    await guest.until('the question', "document.title.startsWith('Sign in with')")
    await guest.click('#go')
    await guest.until('being signed in', "document.title.startsWith('You are signed in')")
    await using gil = personWith(node, 'gil.guest@guest.invalid', await login)
    expect(await gil.ask<Me>('GET', '/me')).toMatchObject({
      email: 'gil.guest@guest.invalid',
      methods: ['webauthn'],
    })
    expect(guest.console.filter((line) => /policy|TrustedHTML/i.test(line))).toEqual([])
  })

  test('no page broke its own policy', () => {
    expect(tab.console.filter((line) => /policy|TrustedHTML/i.test(line))).toEqual([])
  })
})
