/** Enrolment and renewal against the real EST server: what is believed, what is kept, what survives. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { configFrom, enrolAgent } from '#agent'
import type { AgentConfig } from '#agent'
import { Identity } from '../../agent-tunnel/agent/identity.ts'
import { pem, TENANT } from '../ca/support.ts'
import { configOf, Directory, enrolled, running } from './device.ts'
import { DEVICE, FakeGateway, holds, soon } from './gateway.ts'

const HOUR = 3_600_000
const quiet = { log: () => undefined }
const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())
beforeEach(() => {
  gateway.asked.length = 0
  gateway.onEst = async () => 'answer'
})

test('key 0600, root pinned, certificate for that key, config readable again', async () => {
  using directory = new Directory()
  const config = configOf(gateway, directory, ['plc=tcp:127.0.0.1:1502'])
  const pair = await enrolAgent(config, { ...quiet, token: await gateway.bench.token() })
  expect(pair.leaf.checkPrivateKey(pair.key)).toBe(true)
  expect(pair.leaf.subjectAltName).toBe(`URI:sallyport://main.sallyport.internal/device/${DEVICE}`)
  const key = join(directory.path, 'identity', pair.slot, 'key.pem')
  expect(statSync(key).mode & 0o777).toBe(0o600)
  expect(readFileSync(join(directory.path, 'agent.json'), 'utf8')).toContain(
    '"tcp": "127.0.0.1:1502"',
  )
  expect(readFileSync(join(directory.path, 'identity', 'token.json'), 'utf8')).not.toContain('t_')
})

test('the same command again asks nothing of the gateway but the root', async () => {
  using directory = new Directory()
  const config = configOf(gateway, directory)
  const token = await gateway.bench.token()
  const first = await enrolAgent(config, { ...quiet, token })
  gateway.asked.length = 0
  const again = await enrolAgent(config, { ...quiet, token })
  expect(again.leaf.raw.equals(first.leaf.raw)).toBe(true)
  expect(gateway.asked).toEqual(['/.well-known/est/cacerts'])
})

test('another token gets another certificate, and the old pair stays until the new one connects', async () => {
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  const identity = new Identity(directory.path)
  const [first] = identity.pairs()
  gateway.bench.now += 60_000
  const second = await enrolAgent(config, { ...quiet, token: await gateway.bench.token() })
  expect(second.slot).not.toBe(first?.slot)
  expect(identity.pairs().map(({ slot }) => slot)).toEqual([second.slot, first?.slot])
  gateway.bench.now = Date.now()
})

test('a directory of another device is left alone', async () => {
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  const before = readFileSync(join(directory.path, 'agent.json'), 'utf8')
  const other = { ...config, device: 'press-08' }
  await expect(enrolAgent(other, { ...quiet, token: 't' })).rejects.toMatchObject({
    code: 'config.other_device',
  })
  expect(readFileSync(join(directory.path, 'agent.json'), 'utf8')).toBe(before)
})

test('a key that others can read is refused', async () => {
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  chmodSync(join(directory.path, 'identity', 'a', 'key.pem'), 0o644)
  await expect(running(config).stop()).rejects.toMatchObject({ code: 'identity.broken' })
})

describe('refused', () => {
  test("a token that is not one: the gateway's code, exit 3, and the key stays for the next try", async () => {
    using directory = new Directory()
    const config = configOf(gateway, directory)
    await expect(enrolAgent(config, { ...quiet, token: 'nonsense' })).rejects.toMatchObject({
      code: 'enrol.refused',
      serverCode: expect.any(String) as string,
    })
    const key = readFileSync(join(directory.path, 'identity', 'a', 'key.pem'), 'utf8')
    const pair = await enrolAgent(config, { ...quiet, token: await gateway.bench.token() })
    expect(pair.tls.key).toBe(key)
  })

  test('a token spent by another key', async () => {
    using one = new Directory()
    using two = new Directory()
    const token = await gateway.bench.token()
    await enrolAgent(configOf(gateway, one), { ...quiet, token })
    await expect(enrolAgent(configOf(gateway, two), { ...quiet, token })).rejects.toMatchObject({
      code: 'enrol.refused',
    })
  })

  test('a failing CA is a failure to try again, not a refusal', async () => {
    using directory = new Directory()
    const token = await gateway.bench.token()
    gateway.bench.logFails = true
    await expect(
      enrolAgent(configOf(gateway, directory), { ...quiet, token }),
    ).rejects.toMatchObject({ code: 'enrol.failed' })
    gateway.bench.logFails = false
    await enrolAgent(configOf(gateway, directory), { ...quiet, token })
  })
})

describe('the token is shown only to the gateway', () => {
  test('a root that is not the pinned one', async () => {
    using directory = new Directory()
    const config = { ...configOf(gateway, directory), rootSha256: '0'.repeat(64) }
    await expect(enrolAgent(config, { ...quiet, token: 't' })).rejects.toMatchObject({
      code: 'gateway.pin',
    })
    expect(gateway.asked).toEqual(['/.well-known/est/cacerts'])
  })

  test('somebody between who passes the CA certificates on', async () => {
    using directory = new Directory()
    await using between = await FakeGateway.start({ house: gateway.bench.house })
    await using stranger = await FakeGateway.start()
    await between.listen(await stranger.face())
    await expect(
      enrolAgent(configOf(between, directory), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.untrusted' })
    expect(between.asked).toEqual(['/.well-known/est/cacerts'])
  })

  test('a device of the same CA that plays the gateway', async () => {
    using mine = new Directory()
    using directory = new Directory()
    const config = await enrolled(gateway, mine)
    const [pair] = new Identity(config.dataDir).pairs()
    await using thief = await FakeGateway.start({ house: gateway.bench.house })
    await thief.listen({
      key: pair!.key,
      chain: [pair!.leaf.raw, gateway.bench.house.authority.issuing],
    })
    await expect(
      enrolAgent(configOf(thief, directory), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.untrusted' })
  })

  test('a gateway of the same CA under another name', async () => {
    using directory = new Directory()
    await using other = await FakeGateway.start({ house: gateway.bench.house })
    await other.listen(await other.face(['elsewhere.example'], ['192.0.2.1']))
    await expect(
      enrolAgent(configOf(other, directory), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.wrong_name' })
  })
})

describe('the way there', () => {
  const to = (directory: Directory, url: string): AgentConfig =>
    configFrom({ gateway: url, device: DEVICE, rootSha256: '0'.repeat(64) }, directory.path)

  test('a name nobody knows, a port nobody has', async () => {
    using directory = new Directory()
    await expect(
      enrolAgent(to(directory, 'https://no-such-host.invalid'), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.name_unknown' })
    await expect(
      enrolAgent(to(directory, 'https://127.0.0.1:1'), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.unreachable' })
  })

  test('something that is no TLS server', async () => {
    using directory = new Directory()
    const server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(
      0,
      '127.0.0.1',
    )
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await expect(
      enrolAgent(to(directory, `https://127.0.0.1:${port}`), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.tls' })
    server.close()
  })

  test('a gateway that resets whoever comes too often is not taken for an old middlebox', async () => {
    using directory = new Directory()
    const server = createServer((socket) => socket.resetAndDestroy()).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await expect(
      enrolAgent(to(directory, `https://127.0.0.1:${port}`), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({
      code: expect.stringMatching(/^gateway\.(?:tls|unreachable)$/) as string,
      next: expect.stringMatching(/^A gateway resets.*source\.rate/) as string,
    })
    server.close()
  })

  test('a TLS server that speaks something else', async () => {
    using directory = new Directory()
    const { key, chain } = await gateway.face()
    const options = {
      key: String(key.export({ type: 'pkcs8', format: 'pem' })),
      cert: pem(chain[0]!),
      ALPNProtocols: ['h2'],
    }
    const server = createTlsServer(options).listen(0, '127.0.0.1')
    server.on('tlsClientError', () => undefined)
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await expect(
      enrolAgent(to(directory, `https://127.0.0.1:${port}`), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({ code: 'gateway.alpn' })
    server.close()
  })

  test.for([
    ['garbage', 200, 'application/pkcs7-mime', '%%%%'],
    ['a web page', 200, 'text/html', '<html>'],
    ['a flood', 200, 'application/pkcs7-mime', 'A'.repeat(1_000_000)],
    ['a redirect', 302, 'text/plain', ''],
  ] as const)('an answer that is %s', async ([, status, type, body]) => {
    using directory = new Directory()
    gateway.onEst = async (request) => {
      const socket = request.socket
      socket.write(
        `HTTP/1.1 ${status} X\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
      )
      await once(request.socket, 'close').catch(() => undefined)
      return 'drop'
    }
    await expect(
      enrolAgent(configOf(gateway, directory), { ...quiet, token: 't' }),
    ).rejects.toMatchObject({
      code: expect.stringMatching(/^(gateway\.answer|enrol\.failed)$/) as string,
    })
  })
})

describe('the clock', () => {
  test('at 1970 a device enrols and connects', async () => {
    using directory = new Directory()
    const config = configOf(gateway, directory)
    const system = () => 0
    const pair = await enrolAgent(config, { ...quiet, token: await gateway.bench.token(), system })
    expect(pair.notAfter).toBeGreaterThan(Date.now())
    await using agent = running(config, { system })
    await gateway.nextTunnel()
    await holds(() => expect(agent.logged('tunnel.up')).toHaveLength(1))
    expect(Number(agent.logged('tunnel.up')[0]?.fields['clock_off_ms'])).toBeLessThan(-HOUR)
    expect(Number(readFileSync(join(directory.path, 'clock'), 'utf8'))).toBeGreaterThan(
      Date.now() - HOUR,
    )
  })

  test('so far behind that OpenSSL finds every certificate not yet valid', async () => {
    using directory = new Directory()
    const later = Date.now() + 400 * 24 * HOUR
    await using future = await FakeGateway.start({ now: later })
    future.welcome = () => ({ device: DEVICE, now_ms: later, gateway: 'gw1', epoch: 1 })
    const config = await enrolled(future, directory)
    await using _agent = running(config)
    await future.nextTunnel()
  })

  test('in 2040 it is told which clock to look at', async () => {
    using directory = new Directory()
    const system = () => Date.UTC(2040, 0, 1)
    await expect(
      enrolAgent(configOf(gateway, directory), { ...quiet, token: 't', system }),
    ).rejects.toMatchObject({
      code: 'gateway.expired',
      message: expect.stringContaining('2040-01-01') as string,
      next: expect.stringContaining('clock') as string,
    })
  })
})

describe('kill -9', () => {
  const certificates = async () =>
    (await gateway.bench.store.listCertificates(TENANT, { limit: 1000 })).length

  function enroll(directory: Directory, tokenFile: string) {
    const args = [
      bin,
      'agent',
      'enroll',
      '--gateway',
      gateway.url,
      '--device',
      DEVICE,
      '--token-file',
      tokenFile,
    ]
    return spawn(
      process.execPath,
      [...args, '--ca-sha256', gateway.pin, '--data', directory.path],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
  }

  test.for([
    ['while the root is fetched', 'cacerts', 'answer'],
    ['after the certificate was issued, before it was sent', 'simpleenroll', 'drop'],
    ['as the answer leaves', 'simpleenroll', 'answer'],
  ] as const)(
    '%s: the same command goes on, one certificate is issued',
    async ([, operation, outcome]) => {
      using directory = new Directory()
      const tokenFile = join(directory.path, 'token')
      writeFileSync(tokenFile, await gateway.bench.token())
      const issued = await certificates()
      const child = enroll(directory, tokenFile)
      gateway.onEst = async (request) => {
        if (request.url?.endsWith(operation) !== true) return 'answer'
        child.kill('SIGKILL')
        return outcome
      }
      expect((await once(child, 'exit'))[1]).toBe('SIGKILL')
      gateway.onEst = async () => 'answer'
      const [code] = (await once(enroll(directory, tokenFile), 'exit')) as [number]
      expect(code).toBe(0)
      expect(await certificates()).toBe(issued + 1)
      const [pair, more] = new Identity(directory.path).pairs()
      expect(more).toBeUndefined()
      expect(pair?.leaf.checkPrivateKey(pair.key)).toBe(true)
    },
  )

  test('at any moment: what is left can be gone on with', async () => {
    using directory = new Directory()
    const tokenFile = join(directory.path, 'token')
    writeFileSync(tokenFile, await gateway.bench.token())
    for (const ms of [150, 300, 450, 600, 750]) {
      const child = enroll(directory, tokenFile)
      const timer = setTimeout(() => child.kill('SIGKILL'), ms)
      await once(child, 'exit')
      clearTimeout(timer)
    }
    const [code] = (await once(enroll(directory, tokenFile), 'exit')) as [number]
    expect(code).toBe(0)
    expect(new Identity(directory.path).pairs()).toHaveLength(1)
  })
})

describe('renewal', () => {
  /** Moves the gateway and the agent's idea of the date together. */
  function travel(ms: number) {
    gateway.bench.now = Date.now() + ms
    gateway.welcome = () => ({ device: DEVICE, now_ms: Date.now() + ms, gateway: 'gw1', epoch: 1 })
    return { system: () => Date.now() + ms }
  }

  test('past two thirds: a new key, a new tunnel with it, the old pair free only then', async () => {
    using directory = new Directory()
    travel(0)
    const config = await enrolled(gateway, directory)
    const identity = new Identity(directory.path)
    const [old] = identity.pairs()
    await using agent = running(config, travel(52 * HOUR))
    const first = await gateway.nextTunnel()
    const second =
      first.serial === old?.leaf.serialNumber.toLowerCase() ? await gateway.nextTunnel() : first
    expect(second.serial).not.toBe(old?.leaf.serialNumber.toLowerCase())
    const [newest] = identity.pairs()
    expect(newest?.leaf.serialNumber.toLowerCase()).toBe(second.serial)
    expect(newest?.tls.key).not.toBe(old?.tls.key)
    await holds(() => expect(identity.connected).toBe(newest?.slot))
    expect(agent.logged('certificate.renewed')).toHaveLength(1)
  })

  test('after the end: the same key, since only it proves who this is', async () => {
    using directory = new Directory()
    travel(0)
    const config = await enrolled(gateway, directory)
    const identity = new Identity(directory.path)
    const [old] = identity.pairs()
    gateway.refuses = (serial) =>
      serial === old?.leaf.serialNumber.toLowerCase() ? 'peer.expired' : undefined
    await using _agent = running(config, travel(80 * HOUR))
    const held = await gateway.nextTunnel()
    const [newest] = identity.pairs()
    expect(held.serial).toBe(newest?.leaf.serialNumber.toLowerCase())
    expect(newest?.tls.key).toBe(old?.tls.key)
    gateway.refuses = () => undefined
  })

  test('a new certificate the gateway does not take: the old pair is dialled with', async () => {
    using directory = new Directory()
    travel(0)
    const config = await enrolled(gateway, directory)
    const identity = new Identity(directory.path)
    const [old] = identity.pairs()
    gateway.bench.now += 60_000
    const newer = await enrolAgent(config, { ...quiet, token: await gateway.bench.token() })
    gateway.refuses = (serial) =>
      serial === newer.leaf.serialNumber.toLowerCase() ? 'peer.unknown' : undefined
    await using agent = running(config, travel(0))
    expect((await gateway.nextTunnel()).serial).toBe(old?.leaf.serialNumber.toLowerCase())
    expect(agent.logged('tunnel.not_up')[0]?.fields).toMatchObject({ server_code: 'peer.unknown' })
    gateway.refuses = () => undefined
  })

  test('asked for by the gateway on the control stream', async () => {
    using directory = new Directory()
    travel(0)
    const config = await enrolled(gateway, directory)
    await using agent = running(config, travel(HOUR))
    const held = await gateway.nextTunnel()
    held.control.write(Buffer.from('{"type":"renew"}\n{"type":"renew"}\n'))
    const next = await soon('a tunnel with the new certificate', gateway.nextTunnel())
    expect(next.serial).not.toBe(held.serial)
    expect(agent.logged('certificate.renewed')).toHaveLength(1)
  })

  test('a failing renewal is told, and the tunnel stays', async () => {
    using directory = new Directory()
    travel(0)
    const config = await enrolled(gateway, directory)
    gateway.onEst = async () => 'drop'
    await using agent = running(config, travel(66 * HOUR))
    const held = await gateway.nextTunnel()
    await holds(() => expect(agent.logged('certificate.not_renewed')).toHaveLength(1))
    // 66 of 72 hours are past nine tenths: an alarm, not a warning.
    expect(agent.logged('certificate.not_renewed')[0]?.level).toBe('error')
    expect(held.tunnel.draining).toBe(false)
  })
})
