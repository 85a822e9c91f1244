/** An agent behind proxies and in WebSocket: it enrols, its tunnel stands, and the doctor names the hop that fails. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { configFrom, enrolAgent, examineAgent, readConfig, withWay } from '#agent'
import type { AgentConfig, Finding, Way } from '#agent'
import { freePort } from '../support/node.ts'
import { httpProxy, httpsProxy, socksProxy } from '../support/proxy.ts'
import { Directory, running } from './device.ts'
import { DEVICE, FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { startProgram } from './programs/process.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

async function enrolledBy(
  directory: Directory,
  way: Way,
  targets: readonly string[] = [],
): Promise<AgentConfig> {
  const setup = { gateway: gateway.url, device: DEVICE, rootSha256: gateway.pin, targets, way }
  const config = configFrom(setup, directory.path)
  const token = await gateway.bench.token()
  await enrolAgent(config, { token, log: () => undefined })
  return readConfig(directory.path)
}

function secretIn(directory: Directory, text: string, mode = 0o600): string {
  const file = join(directory.path, 'proxy-auth')
  writeFileSync(file, text, { mode })
  return file
}

/** Of a proxy behind TLS: the file that names its authority. */
function anchorOf(directory: Directory, proxy: object): Way {
  if (!('anchor' in proxy)) return {}
  const proxyCaFile = join(directory.path, 'proxy-ca.pem')
  writeFileSync(proxyCaFile, String(proxy.anchor))
  return { proxyCaFile }
}

const ways = [
  { name: 'HTTP CONNECT', start: httpProxy, carrier: 'tls' },
  { name: 'SOCKS5', start: socksProxy, carrier: 'tls' },
  { name: 'HTTP CONNECT inside TLS', start: httpsProxy, carrier: 'tls' },
  { name: 'WebSocket through HTTP CONNECT', start: httpProxy, carrier: 'websocket' },
  { name: 'WebSocket through HTTP CONNECT inside TLS', start: httpsProxy, carrier: 'websocket' },
  { name: 'WebSocket through SOCKS5', start: socksProxy, carrier: 'websocket' },
] as const

test.for(ways)(
  '$name, with a login: enrolment, tunnel, stream, renewal all go through it',
  async ({ start, carrier }) => {
    using directory = new Directory()
    await using proxy = await start({ login: 'press:secret' })
    await using target = await startProgram('target.ts')
    const proxyAuthFile = secretIn(directory, 'press:secret\n')
    const way = { carrier, proxy: proxy.url, proxyAuthFile, ...anchorOf(directory, proxy) }
    const config = await enrolledBy(directory, way, [`plc=tcp:127.0.0.1:${target.port}`])
    const forEst = proxy.asked.length
    expect(forEst).toBeGreaterThan(1)
    expect(config).toMatchObject({ carrier, proxy: { url: proxy.url, authFile: proxyAuthFile } })
    await using agent = running(config)
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    opened.stream.write(Buffer.alloc(300_000, 7))
    await holds(() => expect(opened.received).toHaveLength(300_000))
    expect(proxy.asked.slice(forEst)).toEqual([`127.0.0.1:${gateway.port}`])
    expect(proxy.carried()).toBeGreaterThan(600_000)
    expect(agent.logged('tunnel.up')).toHaveLength(1)

    // The network forgets the connection: the agent is back, on the same way.
    proxy.cut()
    await soon('the stream ends', opened.closed)
    await gateway.nextTunnel()
    expect(proxy.asked.slice(forEst)).toHaveLength(2)
  },
)

test('WebSocket without a proxy: client certificate and all', async () => {
  using directory = new Directory()
  const config = await enrolledBy(directory, { carrier: 'websocket' })
  await using agent = running(config)
  const held = await gateway.nextTunnel()
  expect(held.serial).toMatch(/^[0-9a-f]+$/)
  expect(held.socket.alpnProtocol).toBe('http/1.1')
  await agent.stop()
})

test('the environment wins over the file, and the password over one that was changed', async () => {
  using directory = new Directory()
  const config = await enrolledBy(directory, {})
  await using proxy = await httpProxy({ login: 'press:new' })
  const file = secretIn(directory, 'press:old')
  const behind = withWay(config, { proxy: proxy.url, proxyAuthFile: file })
  await using agent = running(behind)
  await holds(() => expect(agent.logged('tunnel.not_up')).not.toHaveLength(0))
  expect(agent.logged('tunnel.not_up')[0]?.fields).toMatchObject({ code: 'proxy.auth' })
  expect(JSON.stringify(agent.lines)).not.toContain('press:old')
  secretIn(directory, 'press:new')
  await gateway.nextTunnel()
})

describe('doctor', () => {
  async function examined(way: Way, about?: (directory: Directory) => Way): Promise<Finding[]> {
    using directory = new Directory()
    await enrolledBy(directory, {})
    const whole = { ...way, ...about?.(directory) }
    return [...(await examineAgent(directory.path, AbortSignal.timeout(60_000), whole))]
  }
  const broken = (findings: readonly Finding[]) =>
    findings.filter(({ verdict }) => verdict === 'broken')
  const verdicts = (findings: readonly Finding[]) =>
    findings.map(({ hop, verdict }) => `${hop} ${verdict}`)

  test('a proxy on the way is a hop of its own', async () => {
    await using proxy = await httpProxy()
    const findings = await examined({ proxy: proxy.url, carrier: 'websocket' })
    expect(verdicts(findings)).toEqual([
      'config ok',
      'identity ok',
      'dns ok',
      'tcp ok',
      'proxy ok',
      'tls ok',
      'certificate ok',
      'clock ok',
      'websocket ok',
      'tunnel ok',
    ])
    expect(findings[4]?.says).toContain(`goes to 127.0.0.1:${gateway.port}`)
  })

  test('without one there is no such hop', async () => {
    expect(verdicts(await examined({}))).toEqual([
      'config ok',
      'identity ok',
      'dns ok',
      'tcp ok',
      'tls ok',
      'certificate ok',
      'clock ok',
      'tunnel ok',
    ])
  })

  const rows: {
    name: string
    way: () => Promise<AsyncDisposable & { url: string }>
    hop: string
    code: string
    after: string
  }[] = [
    {
      name: 'a proxy that wants a login',
      way: () => httpProxy({ login: 'a:b' }),
      hop: 'proxy',
      code: 'proxy.auth',
      after: 'tcp ok',
    },
    {
      name: 'a proxy that says no',
      way: () => httpProxy({ says: 'HTTP/1.1 403 Forbidden' }),
      hop: 'proxy',
      code: 'proxy.refused',
      after: 'tcp ok',
    },
    {
      name: 'a proxy that cannot go on',
      way: () => socksProxy({ says: '4' }),
      hop: 'proxy',
      code: 'proxy.gateway_unreachable',
      after: 'tcp ok',
    },
    {
      name: 'a proxy whose certificate nobody vouches for',
      way: () => httpsProxy(),
      hop: 'proxy',
      code: 'proxy.untrusted',
      after: 'tcp ok',
    },
    {
      name: 'a proxy that is not there',
      way: async () => ({
        url: `http://127.0.0.1:${await freePort()}`,
        [Symbol.asyncDispose]: async () => {},
      }),
      hop: 'tcp',
      code: 'proxy.unreachable',
      after: 'dns ok',
    },
    {
      name: 'a proxy whose name is unknown',
      way: async () => ({
        url: 'socks5://egress.invalid:1080',
        [Symbol.asyncDispose]: async () => {},
      }),
      hop: 'dns',
      code: 'proxy.name_unknown',
      after: 'identity ok',
    },
  ]
  test.for(rows)('$name is the hop $hop', async ({ way, hop, code, after }) => {
    await using proxy = await way()
    const findings = await examined({ proxy: proxy.url })
    expect(broken(findings)).toMatchObject([{ hop, code }])
    expect(broken(findings)[0]?.next).toBeTruthy()
    const told = verdicts(findings)
    expect(told[told.indexOf(`${hop} broken`) - 1]).toBe(after)
    expect(told).toContain('tls unknown')
  })

  test.for([
    ['is missing', undefined, 0o600],
    ['is for everybody', 'a:b', 0o604],
    ['holds no login', 'just-a-word', 0o600],
  ] as const)('an auth file that %s is a mistake in the config', async ([, text, mode]) => {
    await using proxy = await httpProxy()
    const findings = await examined({ proxy: proxy.url }, (directory) => ({
      proxyAuthFile:
        text === undefined ? '/nonexistent/proxy-auth' : secretIn(directory, text, mode),
    }))
    expect(broken(findings)).toMatchObject([{ hop: 'config', code: 'proxy.secret' }])
    expect(JSON.stringify(findings)).not.toContain('just-a-word')
  })

  test.for(['is missing', 'holds no certificate'])(
    'a CA file of the proxy that %s is a mistake in the config',
    async (what) => {
      await using proxy = await httpsProxy()
      const findings = await examined({ proxy: proxy.url }, (directory) =>
        what === 'is missing'
          ? { proxyCaFile: '/nonexistent/ca.pem' }
          : anchorOf(directory, { anchor: 'hello' }),
      )
      expect(broken(findings)).toMatchObject([{ hop: 'config', code: 'proxy.ca_file' }])
      expect(proxy.asked).toEqual([])
    },
  )

  test('a gateway that does not take the upgrade', async () => {
    gateway.upgrades = false
    try {
      const findings = await examined({ carrier: 'websocket' })
      expect(broken(findings)).toMatchObject([{ hop: 'websocket', code: 'gateway.websocket' }])
      expect(broken(findings)[0]?.says).toContain('HTTP 404')
      expect(verdicts(findings)).toContain('tunnel unknown')
    } finally {
      gateway.upgrades = true
    }
  })
})

describe('agent.json', () => {
  const parsed = (way: Way) =>
    configFrom(
      { gateway: 'https://gw.example', device: 'd', rootSha256: 'a'.repeat(64), way },
      '/x',
    )
  test.for([
    [{ proxy: 'ftp://egress.example' }, /options: proxy: a URL like/],
    [{ proxyCaFile: '/x' }, /options: proxy_ca_file: there is no proxy/],
    [
      { proxy: 'http://egress.example', proxyCaFile: '/x' },
      /options: proxy_ca_file: the proxy is not reached over TLS/,
    ],
    [
      { proxy: 'https://egress.example', proxyCaFile: 'x' },
      /options: proxy_ca_file: the absolute path/,
    ],
    [{ proxy: 'http://a:b@egress.example' }, /options: proxy: a URL must hold no user/],
    [{ carrier: 'quic' }, /options: carrier: "tls" or "websocket"/],
    [{ proxyAuthFile: '/x' }, /options: proxy_auth_file: there is no proxy/],
    [
      { proxy: 'http://egress.example', proxyAuthFile: 'secret' },
      /options: proxy_auth_file: the absolute path/,
    ],
  ] as const)('%j', ([way, why]) => {
    expect(() => parsed(way)).toThrow(why)
  })
  test('what the environment says wrong is named as such', () => {
    expect(() => withWay(parsed({}), { carrier: 'x' })).toThrow(/environment: SALLYPORT_CARRIER/)
  })
})
