/**
 * Step 5: `sallyport connect` opens a local port, a stock Modbus client reads live registers through
 * it, and the HMI of the other device loads through the gateway's web route.
 */
import type { OpenedSession } from '#api'
import { openConnection, readings, startReads, type Connection } from '../connection.ts'
import { expect, until } from '../failure.ts'
import type { GatewayNode } from '../gateway-node.ts'
import type { Found, Stage } from '../stage.ts'
import { Tab } from '../web.ts'
import { approve, request } from './04-grant.ts'

export interface Used extends Found {
  readonly connection: Connection
}

export async function useGrant(stage: Stage, gateway: GatewayNode): Promise<Used> {
  const connection = await openConnection(stage, 'press-07/plc')
  const reads = startReads(stage, 6, 150)
  const code = await reads.end
  const read = readings(reads)
  const strokes = read.map(({ registers }) => registers[0] ?? 0)
  expect(code === 0 && read.length === 6, 'six reads through the local port', reads.lines.slice(-2))
  expect(new Set(strokes).size > 1, 'registers that change', strokes)
  const web = await visitHmi(stage, gateway)
  return {
    connection,
    found: [
      `registers through 127.0.0.1:${stage.ports.vendor}: strokes ${strokes.join(', ')}`,
      web,
    ],
  }
}

async function visitHmi(stage: Stage, gateway: GatewayNode): Promise<string> {
  await approve(stage, await request(stage, 'press-08/hmi'))
  const opened = (await stage.sallyport.ask('vendor', 'open', 'press-08/hmi')) as OpenedSession
  expect(opened.url !== null, 'an address for the web app', opened)
  const tab = new Tab(gateway.read('ca-root.pem'))
  const page = await tab.get(opened.url)
  expect(
    page.status === 200 && page.body.includes('<h1>Press 08</h1>'),
    'the HMI page',
    `${page.status} ${page.body}`,
  )
  const script = await tab.get(new URL('/panel.js', page.url).href)
  expect(
    script.status === 200 && script.body.includes('/api/registers'),
    'its script',
    script.status,
  )
  const first = await tab.get(new URL('/api/registers', page.url).href)
  expect(first.status === 200, 'the values of its registers', first)
  await until('other values after a while', 10_000, async () => {
    const later = await tab.get(new URL('/api/registers', page.url).href)
    expect(later.status === 200, 'its values again', later)
    return later.body === first.body ? undefined : later
  })
  const stranger = await new Tab(gateway.read('ca-root.pem')).get(new URL('/', page.url).href)
  expect(stranger.status >= 400, 'a browser without the session to be refused', stranger.status)
  return `HMI at ${new URL(page.url).host}: page, script and live values; without the session ${stranger.status}`
}
