/** Native clients: who holds a session is proven per connection, and what a connection may is held to what was granted. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { OpenedSession } from '#api'
import { soon, until } from '../../../support/node.ts'
import { oblige } from '../../../support/policy.ts'
import { Client, PLC, refusalOf, seen, serve } from '../../../support/tunnels.ts'
import { Press } from './press.ts'

let press: Press
beforeAll(async () => {
  press = await Press.start()
})
afterAll(() => press[Symbol.asyncDispose]())
beforeEach(() => press.reset())

describe('a connection that does not hold the session', () => {
  let session: OpenedSession
  let client: Client
  beforeAll(async () => {
    session = await press.open()
    client = await Client.dial(press.node)
  })
  afterAll(async () => {
    await client[Symbol.asyncDispose]()
    await press.end(session)
  })
  const rows: readonly {
    readonly name: string
    readonly stream: () => Promise<unknown>
  }[] = [
    {
      name: 'a guessed session id',
      stream: () => client.stream(session, { session: `s_${'0'.repeat(26)}` }),
    },
    {
      name: 'the proof of another secret',
      stream: () => client.stream(session, { proof: client.proof({ secret: 'A'.repeat(43) }) }),
    },
    { name: 'an empty proof', stream: () => client.stream(session, { proof: '' }) },
    { name: 'a proof of 64 KiB', stream: () => client.stream(session, { proof: 'A'.repeat(65) }) },
    { name: 'no proof', stream: () => client.stream(session, { proof: undefined }) },
    { name: 'another version', stream: () => client.stream(session, { v: 2 }) },
    { name: 'a session that is a number', stream: () => client.stream(session, { session: 7 }) },
    {
      name: 'metadata that is not JSON',
      stream: () => client.tunnel.open('tcp', Buffer.from('{"v":1')),
    },
    {
      name: 'metadata that is not UTF-8',
      stream: () => client.tunnel.open('tcp', Uint8Array.of(0xff, 0xfe, 0x7b)),
    },
    { name: 'no metadata', stream: () => client.tunnel.open('tcp', new Uint8Array()) },
    { name: 'a stream of another kind', stream: () => client.stream(session, {}, 'udp') },
    {
      name: 'a control stream, as agents open one',
      stream: () => client.tunnel.open('control', Buffer.from('{"v":1}')),
    },
    {
      name: 'a proof that was made on another connection',
      stream: async () => {
        await using other = await Client.dial(press.node)
        return await client.stream(session, { proof: other.proof(session) })
      },
    },
  ]
  test.for(rows)('$name', async ({ stream }) => {
    const before = press.agent.opened.length
    const { code, told } = await refusalOf(stream())
    expect(code).toBe('session.proof')
    expect(told?.code).toBe('session.proof')
    expect(press.agent.opened.length).toBe(before)
    expect((await press.record(session)).connections).toBe(0)
  })

  test('a wrong secret and an unknown session are told the same', async () => {
    const wrong = await refusalOf(client.stream(session, { proof: 'A'.repeat(43) }))
    const unknown = await refusalOf(client.stream(session, { session: `s_${'0'.repeat(26)}` }))
    expect(unknown.told).toEqual(wrong.told)
  })

  test('the session of another connection of the same client still serves', async () => {
    const line = await client.line(session)
    line.write('hello')
    await line.until('the echo', ({ text }) => text === 'hello')
    line.stream.reset('client.done')
    await press.nothingOpen()
  })
})

describe('a connection that holds the session', () => {
  let session: OpenedSession
  let client: Client
  beforeEach(async () => {
    session = await press.open()
    client = await Client.dial(press.node)
    return async () => {
      await client[Symbol.asyncDispose]()
      await press.end(session)
      await press.nothingOpen()
    }
  })

  test('no byte reaches the device before the decision on what answered', async () => {
    let early = 0
    press.agent.answer = (offer, metadata) => {
      const stream = offer.accept(
        Buffer.from(JSON.stringify({ v: 1, observed: seen('/tmp/evil') })),
      )
      stream.onData = (chunk) => (early += chunk.length)
      stream.onClose = () => {}
      expect(metadata.session).toBe(session.id)
    }
    const proceeded = press.agent.proceeded
    const refusal = await refusalOf(client.stream(session))
    expect(refusal.code).toBe('process.mismatch')
    expect([early, press.agent.proceeded]).toEqual([0, proceeded])
  })

  test('the client ends, the device still answers', async () => {
    press.agent.target = (stream) => {
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.onEnd = () => {
        stream.write(Buffer.from('after your end'))
        stream.end()
      }
    }
    const line = await client.line(session)
    line.write('request')
    line.stream.end()
    expect((await line.gone()).code).toBe('done')
    expect(line.text).toBe('after your end')
  })

  test('the device ends, the client still sends', async () => {
    let got = ''
    press.agent.target = (stream) => {
      stream.onData = (chunk) => {
        got += Buffer.from(chunk).toString()
        stream.consumed(chunk.length)
      }
      stream.onEnd = () => {}
      stream.end()
    }
    const line = await client.line(session)
    await line.until('the end', ({ ended }) => ended)
    line.write('after your end')
    line.stream.end()
    expect((await line.gone()).code).toBe('done')
    await until('the device has it', () => got === 'after your end')
  })

  test('the client is gone: no stream is left on the device', async () => {
    const lines = [await client.line(session), await client.line(session)]
    for (const line of lines) line.write('x')
    await until('both are carried', () => press.agent.open() === 2)
    client.tunnel.close('client.gone')
    await press.nothingOpen()
    expect(await press.record(session)).toMatchObject({ state: 'open', connections: 0 })
  })

  test('the client is gone while the device still looks who answers', async () => {
    const { promise: asked, resolve } = Promise.withResolvers<void>()
    let answer: (() => void) | undefined
    press.agent.answer = (offer, metadata) => {
      answer = () => serve(press.agent, offer, metadata)
      resolve()
    }
    const attempt = refusalOf(client.stream(session))
    await soon('the device is asked', asked)
    client.tunnel.close('client.gone')
    await attempt
    answer?.()
    await press.nothingOpen()
    await until('nothing is counted', async () => (await press.record(session)).connections === 0)
  })

  test('more connections than allowed', async () => {
    oblige({ max_streams: 2 })
    const narrow = await press.open()
    const first = await client.line(narrow)
    await client.line(narrow)
    const { code } = await refusalOf(client.stream(narrow))
    expect(code).toBe('session.limit')
    expect(press.agent.open()).toBe(2)
    first.stream.reset('client.done')
    await until('one is free again', () => press.agent.open() === 1)
    await client.line(narrow)
    await press.end(narrow)
  })

  test('more connections than allowed, all at once', async () => {
    oblige({ max_streams: 2 })
    const narrow = await press.open()
    const attempts = Array.from({ length: 20 }, () => client.stream(narrow))
    const outcomes = await Promise.allSettled(attempts)
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(2)
    expect(press.agent.open()).toBe(2)
    await press.end(narrow)
  })

  test('a tool that opens faster than a second allows hears when to come again, and keeps its tunnel', async () => {
    oblige({ max_streams: 2 })
    const narrow = await press.open()
    await using hasty = await Client.dial(press.node)
    const outcomes = await Promise.allSettled(
      Array.from({ length: 300 }, () => hasty.stream(narrow)),
    )
    const told = outcomes.flatMap((one) =>
      one.status === 'rejected' ? [one.reason as Error & { code: string }] : [],
    )
    const paced = told.filter(({ code }) => code === 'tunnel.pace')
    expect(paced.length).toBeGreaterThan(0)
    expect(paced[0]?.message).toContain('try again in a second')
    expect(told).toHaveLength(298)
    expect(hasty.tunnel.draining).toBe(false)
    expect(await press.record(narrow)).toMatchObject({ state: 'open' })
    await press.end(narrow)
  })

  test('more bytes than allowed: the session ends, and says so', async () => {
    oblige({ max_bytes: 100_000, max_bandwidth_bps: 1_000_000_000 })
    const small = await press.open()
    let arrived = 0
    press.agent.target = (stream) => {
      stream.onData = (chunk) => {
        arrived += chunk.length
        stream.consumed(chunk.length)
      }
    }
    const line = await client.line(small)
    line.write(new Uint8Array(300_000))
    expect((await line.gone()).code).toBe('byte.limit')
    expect(line.signals).toMatchObject([
      { t: 'ending', code: 'byte.limit', next_step: expect.stringMatching(/^connect again/) },
    ])
    await press.nothingOpen()
    expect(arrived).toBeLessThanOrEqual(100_000)
    const ended = await until('the session has ended', async () => {
      const now = await press.record(small)
      return now.state === 'ended' ? now : undefined
    })
    expect(ended.reason).toBe('byte_limit')
    expect((await refusalOf(client.stream(small))).code).toBe('session.proof')
  })

  const refusals = [
    'target.unknown',
    'target.unreachable',
    'target.unobserved',
    'lease.spent',
    'agent.draining',
    'something.new',
  ]
  test.for(refusals)('the device refuses: %s', async (code) => {
    press.agent.answer = (offer) => offer.refuse(code, 'no')
    const refusal = await refusalOf(client.stream(session))
    expect(refusal.code).toBe(code)
    expect(refusal.told?.msg).toContain(code)
    expect((await press.record(session)).connections).toBe(0)
  })

  const answers: readonly { readonly name: string; readonly answer: string }[] = [
    { name: 'what is not JSON', answer: '{"v":1,' },
    { name: 'facts of another form', answer: '{"v":1}' },
    { name: 'facts of another version', answer: '{"v":2,"observed":null}' },
    {
      name: 'a hash that is none',
      answer: JSON.stringify({ v: 1, observed: { ...seen(PLC), sha256: 'x' } }),
    },
    {
      name: 'an executable that is a number',
      answer: JSON.stringify({ v: 1, observed: { ...seen(PLC), exe: 7 } }),
    },
    {
      name: 'no list of others',
      answer: JSON.stringify({ v: 1, observed: { ...seen(PLC), others: undefined } }),
    },
    { name: 'nothing', answer: '' },
  ]
  test.for(answers)('the device answers with $name', async ({ answer }) => {
    press.agent.answer = (offer) => {
      offer.accept(Buffer.from(answer)).onClose = () => {}
    }
    const { code } = await refusalOf(client.stream(session))
    expect(code).toBe('device.report')
    await press.nothingOpen()
    expect((await press.record(session)).connections).toBe(0)
  })

  test('the device sees nothing although it should', async () => {
    press.agent.observed = null
    const from = press.node.size()
    expect((await refusalOf(client.stream(session))).code).toBe('process.unobserved')
    expect(press.node.acts(from).map(({ code }) => code)).toEqual(['session.deny'])
  })
})
