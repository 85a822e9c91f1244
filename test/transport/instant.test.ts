/** A peer that answers within the write it answers, as two ends in one process may. */
import { Duplex } from 'node:stream'
import { expect, test } from 'vitest'
import { defaultLimits, Session } from '#mux'
import type { Monotonic } from '#mux'
import { driveTunnel } from '#tunnel'

const KiB = 1024

/** The acceptor's core right behind `_write`: takes every offer, deals with data at once. */
class InstantPeer extends Duplex {
  readonly #session = new Session(
    {
      role: 'gateway',
      side: 'acceptor',
      instance: 'instant',
      epoch: 1,
      limits: { ...defaultLimits },
      random: () => 0.5,
    },
    performance.now() as Monotonic,
  )

  override _read(): void {
    this.#answer()
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const now = performance.now() as Monotonic
    for (const effect of this.#session.receive(chunk, now)) {
      if (effect.type === 'offer') this.#session.accept(effect.stream, Buffer.alloc(0))
      if (effect.type === 'data')
        this.#session.consumed(effect.stream, effect.end - effect.start, now)
    }
    this.#answer()
    setImmediate(done)
  }

  #answer(): void {
    for (;;) {
      const slab = this.#session.output(performance.now() as Monotonic)
      if (slab === undefined) return
      this.push(Buffer.from(slab))
      this.#session.sent()
    }
  }
}

test('nobody is told to write on within the write that tells him to wait', async () => {
  const tunnel = await driveTunnel(new InstantPeer(), {
    role: 'agent',
    side: 'dialler',
    instance: 'hasty',
    epoch: 1,
  })
  const stream = await tunnel.open('tcp', Buffer.alloc(0))
  const sizes: number[] = []
  let writing = false
  let within = 0
  await new Promise<void>((resolve) => {
    const write = (): void => {
      if (writing) {
        within++
        return resolve()
      }
      writing = true
      while (sizes.length < 256) {
        sizes.push(64 * KiB)
        if (!stream.write(Buffer.alloc(64 * KiB))) break
      }
      writing = false
      if (sizes.length === 256) resolve()
    }
    stream.onDrain = write
    write()
  })
  expect(within).toBe(0)
  tunnel.close('test.over')
})
