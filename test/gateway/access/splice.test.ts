/** Two streams joined, without a gateway around them: what waits, in which order, and what is told only once. */
import { describe, expect, test } from 'vitest'
import { driveTunnel, memoryPair, type Limits, type Tunnel, type TunnelStream } from '#tunnel'
import { spawnSignals } from '../../../gateway/access/spawn.ts'
import { splice } from '../../../gateway/access/splice.ts'
import { Pace } from '../../../gateway/sessions/pace.ts'
import { soon, until } from '../../support/node.ts'
import { Line } from '../../support/tunnels.ts'

describe('two streams joined', () => {
  /** A device whose credit is larger than what a stream takes unasked, and a person who reads nothing. */
  test('what arrives while the other side is full waits, in order, and is not lost', async () => {
    const MiB = 1024 * 1024
    const limits = { initialWindow: 16 * MiB, maxWindow: 16 * MiB, receiveMemory: 256 * MiB }
    const [gatewayEnd, vendorEnd] = await tunnels({})
    const [gatewaySide, deviceEnd] = await tunnels(limits)
    const [toVendor, fromGateway] = await pair(gatewayEnd, vendorEnd)
    const [toDevice, atDevice] = await pair(gatewaySide, deviceEnd)
    const ended = Promise.withResolvers<void>()
    splice({
      client: toVendor,
      device: toDevice,
      pace: { in: new Pace(1e12, 0), out: new Pace(1e12, 0) },
      meter: () => true,
      onEnd: () => ended.resolve(),
    })
    const line = new Line(fromGateway, { reading: false, keep: false })
    const piece = new Uint8Array(MiB)
    for (let at = 0; at < 16; at++) {
      piece.fill(at)
      if (!atDevice.write(piece)) await new Promise<void>((resolve) => (atDevice.onDrain = resolve))
    }
    atDevice.end()
    await until('the first of it is there', () => line.total > 0)
    expect(toVendor.bytesOut).toBeLessThanOrEqual(16 * MiB)
    line.reading = true
    fromGateway.consumed(line.total)
    await line.until('all of it', ({ total }) => total === 16 * MiB)
    await line.until('its end', (one) => one.ended)
    fromGateway.end()
    await soon('both are over', ended.promise)
    for (const tunnel of [vendorEnd, gatewayEnd, gatewaySide, deviceEnd]) tunnel.close('done')
  })

  test('1,500 sizes of a window at once: the device hears few, the last among them, none twice in a row', async () => {
    const [gatewayEnd, vendorEnd] = await tunnels({})
    const [gatewaySide, deviceEnd] = await tunnels({})
    const [toVendor, fromGateway] = await pair(gatewayEnd, vendorEnd)
    const [toDevice, atDevice] = await pair(gatewaySide, deviceEnd)
    const ended = Promise.withResolvers<void>()
    splice({
      client: toVendor,
      device: toDevice,
      pace: { in: new Pace(1e12, 0), out: new Pace(1e12, 0) },
      meter: () => true,
      signals: spawnSignals,
      onEnd: () => ended.resolve(),
    })
    const heard: string[] = []
    atDevice.onData = () => {}
    atDevice.onSignal = (payload) => heard.push(Buffer.from(payload).toString())
    const size = (rows: number) => JSON.stringify({ t: 'winsize', rows, cols: 80 })
    const tell = (rows: number) => fromGateway.signal(Buffer.from(size(rows)))
    for (let at = 0; at < 1490; at++) {
      // A stream keeps few for somebody who does not listen yet.
      if (at % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
      tell(1 + (at % 900))
    }
    for (let at = 0; at < 10; at++) tell(999)
    await until('the last of them is there', () => heard.includes(size(999)))
    tell(999)
    tell(1000)
    await until('another is there', () => heard.includes(size(1000)))
    expect(heard[0]).toBe(size(1))
    expect(heard.slice(-2)).toEqual([size(999), size(1000)])
    expect(heard.length).toBeLessThan(100)
    atDevice.reset('target.closed')
    await soon('both are over', ended.promise)
    for (const tunnel of [vendorEnd, gatewayEnd, gatewaySide, deviceEnd]) tunnel.close('done')
  })
})

/** Two tunnels joined in memory; the first has these limits. */
async function tunnels(limits: Partial<Limits>): Promise<[Tunnel, Tunnel]> {
  const [near, far] = memoryPair()
  const options = { role: 'client', instance: 'x', epoch: 1 } as const
  return await Promise.all([
    driveTunnel(near, { ...options, side: 'acceptor', limits }),
    driveTunnel(far, { ...options, side: 'dialler' }),
  ])
}

async function pair(from: Tunnel, to: Tunnel): Promise<[TunnelStream, TunnelStream]> {
  const { promise, resolve } = Promise.withResolvers<TunnelStream>()
  to.onOpen = (offer) => resolve(offer.accept(new Uint8Array()))
  return [await from.open('tcp', new Uint8Array()), await promise]
}
