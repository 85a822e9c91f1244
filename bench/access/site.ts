/**
 * One plant for `bench -- access`: a gateway from embedded defaults, a device with a web app and a
 * sink behind it, a vendor who may use both, and the vendor's own `sallyport connect`.
 */
import { once } from 'node:events'
import { mkdirSync, realpathSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { join, resolve } from 'node:path'
import type { OpenedSession } from '#api'
import { saveCredentials } from '../../cli/login/index.ts'
import { readLine, type Program } from '../../test/demo/programs.ts'
import { grantFor, openSession, type Person, type TestNode } from '../../test/support/node.ts'
import { programsIn } from '../tunnel/programs.ts'
import { digest, startAgent, startGateway } from '../tunnel/sallyport.ts'
import type { Page } from './load.ts'

const bin = resolve(import.meta.dirname, '../../cli/bin.mjs')
export const DEVICE = 'press-0'
export const SINK = 'sink'
const APP = 'hmi'
const START_MS = 30_000

export interface AccessSite extends AsyncDisposable {
  readonly node: TestNode
  readonly vendor: Person
  readonly gateway: Program
  readonly agent: Program
  /** The app as the vendor's browser has it: one session, one cookie. */
  readonly page: Page
  /** Where `sallyport connect` listens for the sink. */
  readonly connected: number
}

/** `app` and `sink` are ports of this machine. Rejects with what did not start. */
export async function startSite(
  parent: string,
  ports: { readonly app: number; readonly sink: number },
): Promise<AccessSite> {
  const directory = join(parent, 'sallyport')
  mkdirSync(directory)
  const programs = programsIn(directory)
  try {
    const { gateway, node } = await startGateway(programs, directory)
    const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
    const expect = { sha256: [await digest(realpathSync(process.execPath))] }
    const device = await node.device(DEVICE, {
      [APP]: { kind: 'http', expect },
      [SINK]: { kind: 'tcp', expect },
    })
    const targets = { [APP]: ports.app, [SINK]: ports.sink }
    const agent = await startAgent({ programs, directory, node, device, port: node.port, targets })
    for (const name of [APP, SINK])
      await grantFor(vendor, node.admin, { device: DEVICE, process: name, duration_s: 7200 })
    const page = await enter(node, await openSession(vendor, DEVICE, APP))
    const home = join(directory, 'home')
    await saveCredentials(join(home, 'credentials'), vendor.credentials)
    const connect = programs.start({
      name: 'connect',
      command: process.execPath,
      args: [bin, '--json', 'connect', `${DEVICE}/${SINK}`, '--listen', '127.0.0.1:0'],
      cwd: directory,
      env: { SALLYPORT_HOME: home },
    })
    const connected = await connect.line('where it listens', START_MS, portIn)
    return {
      node,
      vendor,
      gateway,
      agent,
      page,
      connected,
      async [Symbol.asyncDispose]() {
        await node[Symbol.asyncDispose]()
        await programs.stopAll()
      },
    }
  } catch (error) {
    await programs.stopAll()
    throw error
  }
}

function portIn(line: string): number | undefined {
  const port = readLine(line)?.['port']
  return typeof port === 'number' ? port : undefined
}

/** Follows the session's link once, as a browser does, and keeps the cookie. */
async function enter(node: TestNode, { url }: OpenedSession): Promise<Page> {
  if (url === null) throw new Error('the app has no page')
  const { pathname, search, hostname, host } = new URL(url)
  const asked = request({
    host: '127.0.0.1',
    port: node.port,
    servername: hostname,
    ca: node.anchor,
    path: pathname + search,
    headers: { host },
    agent: false,
  })
  asked.end()
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  response.resume()
  const cookie = response.headers['set-cookie']?.[0]?.split(';')[0]
  if (cookie === undefined) throw new Error(`the app's door answered ${response.statusCode}`)
  return {
    url: `https://127.0.0.1:${node.port}/`,
    ca: node.anchor,
    servername: hostname,
    headers: { host, cookie },
  }
}
