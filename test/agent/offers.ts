/** A gateway that gives out updates: what it holds, what it offers, and what the agent on its newest tunnel says of them. */
import { generateKeyPairSync, hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import { signUpdate, updateKeyOf } from '#update'
import { FakeGateway, holds, type Held } from './gateway.ts'

type Report = Readonly<Record<string, unknown>>

export class Offers {
  readonly gateway: FakeGateway
  readonly #private = generateKeyPairSync('ed25519').privateKey
  readonly key = updateKeyOf(this.#private)!

  private constructor(gateway: FakeGateway) {
    this.gateway = gateway
  }

  static async start(): Promise<Offers> {
    const gateway = await FakeGateway.start()
    const told = { device: 'press-07', gateway: 'gw1', epoch: 1, updates: 1 }
    gateway.welcome = () => ({ ...told, now_ms: Date.now() })
    return new Offers(gateway)
  }

  /** Has the gateway hold it; gives its manifest. `health`: seconds. */
  published(version: string, bundle: Buffer, health: number): string {
    const sha256 = hash('sha256', bundle, 'hex')
    this.gateway.files.set(sha256, bundle)
    const notAfter = Math.floor(Date.now() / 1000) + 3600
    const facts = { from: '0.1.0', node: '26.0.0', health, notAfter }
    return signUpdate({ version, sha256, size: bundle.length, ...facts }, this.#private)
  }

  get newest(): Held {
    return this.gateway.tunnels.at(-1)!
  }

  say(message: Record<string, unknown>): void {
    this.newest.control.write(Buffer.from(`${JSON.stringify({ type: 'update', ...message })}\n`))
  }

  offer(rollout: string, manifest: string): void {
    this.say({ act: 'offer', rollout, manifest })
  }

  /** Waits until the agent says so of its updates. */
  async reports(expected: Report): Promise<void> {
    await holds(() =>
      expect(this.newest.reports.findLast(({ type }) => type === 'update')).toMatchObject(expected),
    )
  }
}

/** The agent in one file at `installed` as another version, and changed. */
export function another(
  installed: string,
  version: string,
  change: (source: string) => string = (source) => source,
): Buffer {
  const source = readFileSync(installed, 'latin1')
  const changed = change(source.replaceAll('0.1.0', version))
  expect(changed).not.toBe(source)
  return Buffer.from(changed, 'latin1')
}
