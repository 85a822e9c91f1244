/** A clock that is wrong, at the device or at the gateway: what is believed, and what a person is told. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { enrolAgent, examineAgent } from '#agent'
import { HOUR } from '../ca/support.ts'
import { holds } from '../support/patience.ts'
import { configOf, Directory, enrolled, running } from './device.ts'
import { DEVICE, FakeGateway } from './gateway.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
/** Debian's faketime: the clock that OpenSSL reads as well. */
const [faketime] = globSync('/usr/lib/*/faketime/libfaketime.so.1')

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

const YEAR = 365 * 24 * HOUR
const quiet = { log: () => undefined }

describe('a gateway whose clock runs two years ahead', () => {
  test('says so on its old certificate: it is not believed, and the device comes back when it is right again', async () => {
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    const right = gateway.welcome
    gateway.welcome = () => ({ ...right?.(), now_ms: Date.now() + 2 * YEAR })
    {
      await using agent = running(config)
      await gateway.nextTunnel()
      await holds(() => expect(agent.logged('tunnel.up')).toHaveLength(1))
    }
    gateway.welcome = right
    const saved = join(directory.path, 'clock')
    expect(existsSync(saved) ? Number(readFileSync(saved, 'utf8')) : 0).toBeLessThan(
      Date.now() + HOUR,
    )
    await using agent = running(config)
    await gateway.nextTunnel()
    await holds(() => expect(agent.logged('tunnel.up')).toHaveLength(1))
  })

  test('was believed once: refused with both dates and the way back, which is one', async () => {
    using directory = new Directory()
    const believed = Date.now() + 2 * YEAR
    writeFileSync(join(directory.path, 'clock'), `${believed}\n`)
    const token = await gateway.bench.token()
    const refused = enrolAgent(configOf(gateway, directory), { ...quiet, token })
    await expect(refused).rejects.toMatchObject({
      code: 'gateway.expired',
      message: expect.stringMatching(
        new RegExp(
          `believes it is ${new Date(believed).toISOString().slice(0, 10)}T.*, the latest that a gateway told it .* its own clock says ${new Date().toISOString().slice(0, 10)}T`,
        ),
      ) as string,
      next: expect.stringMatching(/with a new token and an empty data directory/) as string,
    })
    using empty = new Directory()
    const pair = await enrolAgent(configOf(gateway, empty), { ...quiet, token })
    expect(pair.notAfter).toBeGreaterThan(Date.now())
  })
})

test('doctor by a clock after the certificate’s end: ended, not ok, with that clock’s time', async () => {
  using directory = new Directory()
  const config = configOf(gateway, directory)
  const { notAfter } = await enrolAgent(config, { ...quiet, token: await gateway.bench.token() })
  vi.useFakeTimers({ toFake: ['Date'], now: notAfter + 24 * HOUR })
  onTestFinished(() => void vi.useRealTimers())
  const findings = await examineAgent(directory.path, AbortSignal.timeout(20_000))
  expect(findings.filter(({ hop }) => hop === 'identity')).toMatchObject([
    { verdict: 'broken', code: 'identity.expired' },
  ])
  const [identity] = findings.filter(({ hop }) => hop === 'identity')
  expect(identity?.says).toContain(new Date(notAfter + 24 * HOUR).toISOString().slice(0, 10))
})

describe.skipIf(faketime === undefined)('a device with the wrong clock (needs faketime)', () => {
  async function enroll(directory: Directory, clock: string) {
    const token = join(directory.path, 'token')
    writeFileSync(token, await gateway.bench.token())
    const args = [bin, 'agent', 'enroll', '--gateway', gateway.url, '--device', DEVICE]
    const more = ['--token-file', token, '--ca-sha256', gateway.pin, '--data', directory.path]
    const child = spawn(process.execPath, [...args, ...more], {
      env: {
        ...process.env,
        LD_PRELOAD: faketime,
        FAKETIME: clock,
        // What waits, waits by another clock.
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let said = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (said += text))
    const [code] = (await once(child, 'close')) as [number]
    return { code, said }
  }

  test.for([
    ['of 1970', '@1970-01-02 00:00:00'],
    ['a day behind', '-1d'],
  ])('%s: the program enrols', async ([, clock = '']) => {
    using directory = new Directory()
    const { code, said } = await enroll(directory, clock)
    expect(code, said).toBe(0)
    expect(said, 'the token was for everybody to read').toContain('chmod 600')
    await using agent = running(configOf(gateway, directory))
    await gateway.nextTunnel()
    await holds(() => expect(agent.logged('tunnel.up')).toHaveLength(1))
  })

  test('two years ahead: the program says what it believes, and which clock to set', async () => {
    using directory = new Directory()
    const { code, said } = await enroll(directory, '+2y')
    expect(code).toBe(1)
    const year = new Date(Date.now() + 2 * YEAR).getUTCFullYear()
    expect(said).toContain(`This device believes it is ${year}-`)
    expect(said).toContain('Set the clock of this device')
    expect(said).toContain('gateway.expired')
  })
})
