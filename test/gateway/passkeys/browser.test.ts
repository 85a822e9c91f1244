/** Passkeys as people meet them: a real browser, its authenticator, the pages of a running gateway. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Ceremony, Grant, Me, Passkey } from '#api'
import { checkSignedGrant, readSignedGrant } from '#approval'
import { deviceLogin } from '../../../cli/login/index.ts'
import { noChromium, openChromium, type Chromium, type Tab } from '../../support/chromium.ts'
import { PASSWORD, personWith, startNode, type Person, type TestNode } from '../../support/node.ts'
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
  }, 150_000)
  afterAll(async () => {
    await chromium[Symbol.asyncDispose]()
    await node[Symbol.asyncDispose]()
  })

  const text = (selector: string) =>
    tab.run<string>(`document.querySelector(${JSON.stringify(selector)}).innerText`)
  const visible = (id: string) => `document.getElementById('${id}')?.hidden === false`
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

  test('signing in takes the password and then the passkey', async () => {
    let code = ''
    const signingIn = deviceLogin({
      gateway: node.origin,
      trust: { anchor: node.anchor },
      onPrompt({ completeUrl }) {
        code = completeUrl
      },
    })
    while (code === '') await new Promise((resolve) => setTimeout(resolve, 5))
    await tab.open(code)
    await tab.click('button')
    await tab.until('the code', "document.querySelector('button[name=confirm]') !== null")
    await tab.click('button[name=confirm]')
    await tab.until('the sign-in', "document.querySelector('#password') !== null")
    await tab.type('#email', oda.email)
    await tab.type('#password', PASSWORD)
    await tab.click('button[value=login]')
    await tab.until('the second factor', "document.querySelector('#second') !== null")
    await tab.click('#go')
    await tab.until('the end', "document.title.startsWith('You are signed in')")
    await using again = personWith(node, oda.email, await signingIn)
    expect((await again.ask<Me>('GET', '/me')).methods).toEqual(['pwd', 'webauthn'])
  })

  test('no page broke its own policy', () => {
    expect(tab.console.filter((line) => /policy|TrustedHTML/i.test(line))).toEqual([])
  })
})
