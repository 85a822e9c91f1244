/**
 * A vendor nobody here has met: from the invitation to registers read, with what the vendor's page of the docs says and
 * nothing else. The commands are typed as they were printed; what the approver does is one of them.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { client } from 'jsmodbus'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DeviceToken } from '#api'
import { configFrom, enrolAgent, runAgent } from '#agent'
import { saveCredentials } from '../../cli/login/index.ts'
import { listen, run } from '../cli/run.ts'
import { challengeOf } from '../gateway/identity/guest.ts'
import { softKey } from '../support/authenticator.ts'
import { openBrowser, type Browser, type Page } from '../support/browser.ts'
import { sha256, startNode, until, type TestNode } from '../support/node.ts'

const bin = resolve(import.meta.dirname, '../../cli/bin.mjs')
const folder = mkdtempSync(join(tmpdir(), 'sallyport-guest-'))
const homeOf = (who: string): string => join(folder, who)
const stopping = new AbortController()
const children: ChildProcess[] = []
let node: TestNode
let agent: Promise<void>

/** A program of its own; gives its first line, as JSON. */
async function start(
  command: string,
  args: readonly string[],
  home = folder,
): Promise<Record<string, unknown>> {
  const env = { ...process.env, SALLYPORT_HOME: home }
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (words: string) => (said += words))
  const [line] = (await Promise.race([
    once(createInterface({ input: child.stdout }), 'line'),
    once(child, 'close').then(() => {
      throw new Error(`${args.join(' ')} ended: ${said}`)
    }),
  ])) as [string]
  return JSON.parse(line) as Record<string, unknown>
}

beforeAll(async () => {
  node = await startNode()
  const exe = join(folder, 'plc-server')
  copyFileSync(process.execPath, exe)
  const { port } = await start(exe, [resolve(import.meta.dirname, 'controller.ts')])
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
    id: 'press-07',
  })
  const expects = { sha256: [sha256(readFileSync(exe))] }
  const plc = { kind: 'modbus', port, expect: expects }
  await node.admin.ask('PUT', '/devices/press-07/processes/plc', plc)
  const options = {
    gateway: node.origin,
    device: 'press-07',
    rootSha256: readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').split(/\s/)[0] ?? '',
    targets: [`plc=tcp:127.0.0.1:${String(port)}`],
  }
  const config = configFrom(options, join(folder, 'press-07'))
  await enrolAgent(config, { token: token.token, log: () => undefined })
  agent = runAgent(config, { signal: stopping.signal, log: () => undefined })
  await saveCredentials(join(homeOf('admin'), 'credentials'), node.admin.credentials)
  await until('the device is connected', async () => (await node.health()).devices === 1)
})
afterAll(async () => {
  for (const child of children) child.kill('SIGTERM')
  stopping.abort()
  await agent
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

/** What the administrator sends: the lines of the invitation, by their names. */
async function invited(name: string, ...more: string[]): Promise<ReadonlyMap<string, string>> {
  const asked = ['account', 'invite', '--name', name, '--vendor', 'acme', ...more]
  const { code, out, err } = await run(homeOf('admin'), ...asked)
  expect([code, err.includes('uninvite')]).toEqual([0, true])
  return new Map(out.split('\n').map((line) => [line.slice(0, 12).trim(), line.slice(12).trim()]))
}

type Choice = (browser: Browser, page: Page) => Promise<Page>
const byPassword: Choice = async (browser, page) => {
  const password = 'words that nobody else has'
  return browser.submit(page, 'Set this password', { password, again: password })
}
const byPasskey: Choice = async (browser, page) => {
  const made = softKey(node.origin).register(challengeOf(page))
  return browser.submit(page, 'Use a passkey', { credential: JSON.stringify(made) })
}

/** The link in a browser, and a few clicks. */
async function comesIn(browser: Browser, link: string, choose: Choice): Promise<void> {
  const [address = '', secret = ''] = link.split('#')
  const page = await browser.open(address)
  const shown = await browser.submit(page, 'Open the invitation', { secret })
  expect((await choose(browser, shown)).title).toBe('You are in - Sallyport')
}

/** The line of the invitation, typed; the browser asks for nothing but whether the code is the same. */
async function logsIn(browser: Browser, line: string, home: string): Promise<void> {
  const [program, ...args] = line.split(' ')
  expect(program).toBe('sallyport')
  const address = Promise.withResolvers<string>()
  const heard = (text: string) => {
    const [url] = /https:\S+user_code=\S+/.exec(text) ?? []
    if (url !== undefined) address.resolve(url)
  }
  const login = listen(home, heard, ...args)
  const compare = await browser.submit(await browser.open(await address.promise), 'Continue')
  const agree = await browser.submit(compare, 'Yes, the code matches')
  expect((await browser.submit(agree, 'Continue')).title).toBe('You are signed in - Sallyport')
  expect(await login).toMatchObject({ code: 0 })
}

/** The vendor's own tool: a stock Modbus client, which knows of a local port and nothing else. */
async function readRegisters(port: number): Promise<readonly number[]> {
  const socket = connect(port, '127.0.0.1')
  // When to give up, not how long it may take.
  const modbus = new client.TCP(socket, 1, 60_000)
  try {
    await once(socket, 'connect')
    const { response } = await modbus.readHoldingRegisters(0, 5)
    return [...response.body.valuesAsArray]
  } finally {
    socket.destroy()
  }
}

test.for([
  ['a password', 'Gil Guest', byPassword, 'pwd'],
  ['a passkey and no password', 'Gala Guest', byPasskey, 'webauthn'],
] as const)(
  'with %s: link, login, request, connect, read; the approver types one line',

  async ([, name, choose, method]) => {
    await using browser = openBrowser(node.anchor)
    const home = homeOf(name)
    const lines = await invited(name, '--group', 'press-service')
    await comesIn(browser, lines.get('open') ?? '', choose)
    await logsIn(browser, lines.get('then run') ?? '', home)

    const asked = ['--for', '2m', '--reason', 'pressure drifts', '--ticket', 'WO-4711']
    const { code, out } = await run(home, '--json', 'request', 'press-07/plc', ...asked)
    expect(code).toBe(0)
    const { id } = JSON.parse(out) as { id: string }
    const approved = await run(homeOf('admin'), 'approve', id)
    expect(approved).toMatchObject({ code: 0 })

    const way = ['--json', 'connect', 'press-07/plc', '--listen', '127.0.0.1:0']
    const { port } = await start(process.execPath, [bin, ...way], home)
    expect(await readRegisters(Number(port))).toEqual([0, 0, 0, 0, 0])

    const me = await run(home, '--json', 'whoami')
    expect(JSON.parse(me.out)).toMatchObject({
      party: 'vendor',
      vendor: 'acme',
      roles: ['vendor'],
      groups: ['press-service'],
      methods: [method],
    })
    const listed = await run(homeOf('admin'), 'account', 'invitations')
    expect(listed.out).toMatch(new RegExp(`used +${lines.get('you are')}`))
  },
)

test('an invitation that was withdrawn, an id that is none, and whoever may not invite', async () => {
  const lines = await invited('Wim Withdrawn', '--for', '10m')
  const listed = await run(homeOf('admin'), '--json', 'account', 'invitations')
  const items = JSON.parse(listed.out) as { id: string; state: string }[]
  expect(items[0]).toMatchObject({ state: 'open' })
  const gone = await run(homeOf('admin'), 'account', 'uninvite', items[0]?.id ?? '')
  expect(gone).toMatchObject({ code: 0 })
  await using browser = openBrowser(node.anchor)
  await expect(comesIn(browser, lines.get('open') ?? '', byPassword)).rejects.toThrow(
    'invitation.revoked',
  )
  expect((await run(homeOf('admin'), 'account', 'uninvite', 'x')).code).toBe(2)

  const oda = await node.person('oda', { party: 'staff', roles: ['operator'] })
  await saveCredentials(join(homeOf('oda'), 'credentials'), oda.credentials)
  for (const args of [
    ['invite', '--name', 'X', '--vendor', 'x'],
    ['invitations'],
    ['uninvite', items[0]?.id ?? ''],
  ])
    expect(await run(homeOf('oda'), 'account', ...args)).toMatchObject({ code: 3 })
  const secrets = [lines.get('open')?.split('#')[1] ?? 'none']
  expect(node.events().some(({ text }) => secrets.some((secret) => text.includes(secret)))).toBe(
    false,
  )
})
