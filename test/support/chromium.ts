/**
 * A real browser with a virtual authenticator: Chromium over the DevTools protocol, on a pipe. It trusts one server
 * key and no other, and has a throw-away profile.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import type { Readable, Writable } from 'node:stream'

/** Why tests with a browser cannot run here, or undefined where they can. */
export const noChromium: string | undefined =
  spawnSync('chromium', ['--version']).status === 0 ? undefined : 'chromium is not installed'

type Json = Readonly<Record<string, unknown>>

export interface Authenticator {
  /** Whether its owner gives the finger or PIN when asked. */
  verified(yes: boolean): Promise<void>
  credentials(): Promise<readonly { readonly credentialId: string; readonly signCount: number }[]>
}

export interface Tab {
  readonly authenticator: Authenticator
  open(url: string): Promise<void>
  /** The value of an expression in the page; promises are awaited. */
  run<T>(expression: string): Promise<T>
  /** Waits until the expression is true. */
  until(what: string, expression: string): Promise<void>
  /** Clicks as a person does: at the middle of the element, with a mouse. */
  click(selector: string): Promise<void>
  type(selector: string, text: string): Promise<void>
  /** What it asks for at an address like `pattern` (`*` stands for anything) does not come before it is let go. */
  holdBack(pattern: string): Promise<() => Promise<void>>
  /** The next thing that it asks for at an address like `pattern` fails, as where the network has just changed. */
  failNext(pattern: string): Promise<void>
  /** Lines that the page wrote to its console, violations of its policy among them. */
  readonly console: readonly string[]
}

export interface Chromium extends AsyncDisposable {
  /** A new tab with its own authenticator. */
  tab(): Promise<Tab>
}

/** Starts a browser that trusts the server at `origin` by its key. */
export async function openChromium(origin: string): Promise<Chromium> {
  const profile = await mkdtemp(join(tmpdir(), 'sallyport-chromium-'))
  const child = spawn(
    'chromium',
    [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-extensions',
      '--no-first-run',
      '--remote-debugging-pipe',
      `--user-data-dir=${profile}`,
      `--ignore-certificate-errors-spki-list=${await serverKey(origin)}`,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
  )
  const pipe = new Pipe(child)
  return {
    tab: async () => openTab(pipe),
    async [Symbol.asyncDispose]() {
      const gone = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await gone
      await rm(profile, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/** SHA-256 of the public key that the server shows, base64. */
async function serverKey(origin: string): Promise<string> {
  const { hostname, port } = new URL(origin)
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connect(
    { host: '127.0.0.1', port: Number(port), servername: hostname, rejectUnauthorized: false },
    () => {
      const { raw } = socket.getPeerCertificate()
      const der = new X509Certificate(raw).publicKey.export({ type: 'spki', format: 'der' })
      resolve(createHash('sha256').update(der).digest('base64'))
      socket.destroy()
    },
  )
  socket.on('error', reject)
  return promise
}

interface Waiter {
  readonly resolve: (result: Json) => void
  readonly reject: (error: Error) => void
}

/** Commands and events, a JSON text and a NUL each. */
class Pipe {
  readonly #out: Writable
  readonly #waiting = new Map<number, Waiter>()
  readonly listeners = new Set<(method: string, params: Json, session: unknown) => void>()
  #last = 0

  constructor(child: ChildProcess) {
    this.#out = child.stdio[3] as Writable
    const input = child.stdio[4] as Readable
    let rest = ''
    input.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (rest + chunk).split('\0')
      rest = parts.pop() ?? ''
      for (const part of parts) this.#hear(JSON.parse(part) as Json)
    })
    this.#out.on('error', () => {})
    child.on('error', (error) => this.#end(error))
    child.on('exit', () => this.#end(new Error('the browser has ended')))
  }

  #end(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }

  #hear(message: Json): void {
    const { id, result, error, method, params, sessionId } = message
    if (typeof method === 'string')
      for (const listen of this.listeners) listen(method, (params ?? {}) as Json, sessionId)
    if (typeof id !== 'number') return
    const waiter = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) waiter?.resolve((result ?? {}) as Json)
    else waiter?.reject(new Error(JSON.stringify(error)))
  }

  async send(method: string, params: Json = {}, sessionId?: string): Promise<Json> {
    const id = ++this.#last
    const { promise, resolve, reject } = Promise.withResolvers<Json>()
    this.#waiting.set(id, { resolve, reject })
    const session = sessionId === undefined ? {} : { sessionId }
    this.#out.write(`${JSON.stringify({ id, method, params, ...session })}\0`)
    return promise
  }
}

const LIMIT_MS = 60_000

async function openTab(pipe: Pipe): Promise<Tab> {
  const { targetId } = await pipe.send('Target.createTarget', { url: 'about:blank' })
  const attached = await pipe.send('Target.attachToTarget', { targetId, flatten: true })
  const session = String(attached['sessionId'])
  const send = async (method: string, params: Json = {}) => pipe.send(method, params, session)
  const lines: string[] = []
  pipe.listeners.add((method, params, of) => {
    if (of !== session) return
    if (method === 'Log.entryAdded') lines.push(String((params['entry'] as Json)['text']))
    if (method === 'Runtime.exceptionThrown') lines.push(JSON.stringify(params))
  })
  for (const domain of ['Page', 'Runtime', 'Log', 'WebAuthn']) await send(`${domain}.enable`)
  const { authenticatorId } = await send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2',
      transport: 'internal',
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  })
  const run = async <T>(expression: string): Promise<T> => {
    const options = { expression, awaitPromise: true, returnByValue: true, userGesture: true }
    const { result, exceptionDetails } = await send('Runtime.evaluate', options)
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails))
    return (result as Json)['value'] as T
  }
  const until = async (what: string, expression: string): Promise<void> => {
    const end = performance.now() + LIMIT_MS
    // A page that is being left has no answer; the next one has.
    while ((await run(expression).catch(() => false)) !== true)
      if (performance.now() > end)
        throw new Error(
          `${what} did not happen:\n${await run<string>('document.body.innerText')}\n${lines.join('\n')}`,
        )
      else await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const click = async (selector: string): Promise<void> => {
    const found = `document.querySelector(${JSON.stringify(selector)})`
    // While a page still loads, what is on it moves: the press would go beside.
    await until(
      `${selector} to press`,
      `document.readyState === 'complete' && ${found} !== null && !${found}.disabled`,
    )
    const [x, y] = await run<[number, number]>(
      `(() => { const e = ${found}; e.scrollIntoView({block:'center'});
        const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`,
    )
    const mouse = { x, y, button: 'left', clickCount: 1 }
    await send('Input.dispatchMouseEvent', { type: 'mousePressed', ...mouse })
    await send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...mouse })
  }
  return {
    console: lines,
    authenticator: {
      async verified(yes) {
        await send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: yes })
      },
      async credentials() {
        const { credentials } = await send('WebAuthn.getCredentials', { authenticatorId })
        return credentials as { credentialId: string; signCount: number }[]
      },
    },
    async open(url) {
      // The hash alone would not load a page again.
      await send('Page.navigate', { url: 'about:blank' })
      // What it looks for while an interface of the machine comes or goes is given up, a script of the page as well as
      // the page: anybody loads it again.
      const gone = 'net::ERR_NETWORK_CHANGED'
      for (;;) {
        const from = lines.length
        const { errorText } = await send('Page.navigate', { url })
        await until(
          'the page',
          "document.readyState === 'complete' && location.href !== 'about:blank'",
        )
        if (errorText !== gone && !lines.slice(from).some((line) => line.includes(gone))) return
        await send('Page.navigate', { url: 'about:blank' })
      }
    },
    run,
    until,
    click,
    async holdBack(urlPattern) {
      const held: string[] = []
      const hear = (method: string, { requestId }: Json, of: unknown): void => {
        if (of === session && method === 'Fetch.requestPaused') held.push(String(requestId))
      }
      pipe.listeners.add(hear)
      await send('Fetch.enable', { patterns: [{ urlPattern }] })
      return async () => {
        pipe.listeners.delete(hear)
        for (const requestId of held) await send('Fetch.continueRequest', { requestId })
        await send('Fetch.disable')
      }
    },
    async failNext(urlPattern) {
      const hear = (method: string, { requestId }: Json, of: unknown): void => {
        if (of !== session || method !== 'Fetch.requestPaused') return
        pipe.listeners.delete(hear)
        void send('Fetch.failRequest', { requestId, errorReason: 'ConnectionAborted' })
          .then(() => send('Fetch.disable'))
          .catch(() => {})
      }
      pipe.listeners.add(hear)
      await send('Fetch.enable', { patterns: [{ urlPattern }] })
    },
    async type(selector, text) {
      const found = `document.querySelector(${JSON.stringify(selector)})`
      await until(
        `${selector} to fill in`,
        `document.readyState === 'complete' && ${found} !== null`,
      )
      await run(`${found}.focus()`)
      await send('Input.insertText', { text })
    },
  }
}
