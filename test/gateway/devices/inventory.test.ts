/** What a device exposes against what was accepted: which change is one, and how often it is recorded. */
import { describe, expect, test } from 'vitest'
import type { EventInput } from '#audit'
import type { Clock, Monotonic } from '#tunnel'
import { InventoryWatch, RECORD_EVERY_MS, RECORDS_AT_ONCE } from '../../../gateway/devices/drift.ts'
import { differences, hasDrift, inventoryOf } from '../../../gateway/devices/inventory.ts'
import type {
  Baseline,
  Inventory,
  InventoryStore,
  KeptInventory,
  ToldTarget,
} from '../../../gateway/devices/inventory.ts'
import { seen } from '../../support/tunnels.ts'

const PLC = '/usr/bin/plc-runtime'

function target(change: Partial<ToldTarget> = {}): ToldTarget {
  return {
    process: 'plc',
    kind: 'tcp',
    listener: seen(PLC, 'listener'),
    listens: ['127.0.0.1:502'],
    ...change,
  }
}
const inventory = (...targets: readonly ToldTarget[]): Inventory => inventoryOf(targets, 0)
const absent = target({ listener: null, listens: [] })
const other = target({ listener: seen('/tmp/other', 'listener') })

describe('a change of what is exposed', () => {
  test.for([
    ['another executable', target(), other, ['exe', 'sha256'], true],
    [
      'another user',
      target(),
      target({ listener: { ...seen(PLC, 'listener'), uid: 0 } }),
      ['uid'],
      true,
    ],
    [
      'a second port',
      target(),
      target({ listens: ['127.0.0.1:502', '0.0.0.0:23'] }),
      ['listens'],
      true,
    ],
    ['ports that can no longer be seen', target(), target({ listens: null }), ['listens'], true],
    [
      'a second program on the socket',
      target(),
      target({ listener: { ...seen(PLC), others: [seen('/tmp/other')] } }),
      ['programs'],
      true,
    ],
    [
      'more programs than are told one by one',
      target(),
      target({ listener: null }),
      ['exe', 'sha256', 'uid'],
      true,
    ],
    ['nobody listens any more', target(), absent, ['listener'], false],
    ['somebody listens where nobody did', absent, target(), ['listener', 'listens'], true],
    ['a target of another kind', target(), target({ kind: 'lan' }), ['kind'], true],
    [
      'a restart: pid and start time',
      target(),
      target({ listener: { ...seen(PLC), pid: 1, started_at: 2 } }),
      [],
      false,
    ],
    [
      'the same ports in another order',
      target({ listens: ['a:1', 'b:2'] }),
      target({ listens: ['b:2', 'a:1'] }),
      [],
      false,
    ],
  ] as const)('%s', ([, before, after, facts, drift]) => {
    const [was, is] = [inventory(before), inventory(after)]
    const found = differences(was.processes, is.processes)
    expect(found.map(({ fact }) => fact)).toEqual(facts)
    expect(hasDrift(found)).toBe(drift)
    expect(was.hash === is.hash).toBe(facts.length === 0)
  })

  test('a target that came, and one that went', () => {
    const [one, two] = [inventory(target()), inventory(target({ process: 'hmi' }))]
    expect(differences(one.processes, two.processes)).toEqual([
      { process: 'hmi', fact: 'process', accepted: null, current: 'exposed', drift: true },
      { process: 'plc', fact: 'process', accepted: 'exposed', current: null, drift: true },
    ])
  })

  test('how many processes cannot be read is no part of what is accepted', () => {
    expect(inventoryOf([target()], 7).hash).toBe(inventoryOf([target()], 0).hash)
  })
})

/** A clock that stands until told, and a store and log in memory. */
class House implements InventoryStore {
  readonly events: EventInput[] = []
  readonly withdrawn: string[][] = []
  readonly failures: unknown[] = []
  kept: KeptInventory | undefined
  accepted: Baseline | undefined
  broken = false
  #now = 0
  readonly #timers = new Set<{ readonly at: number; readonly wake: () => void }>()
  readonly watch: InventoryWatch

  constructor(accepted?: Inventory) {
    if (accepted !== undefined) {
      const { hash, processes } = accepted
      this.accepted = { hash, processes, at: 1, by: 'iss|oda' }
      this.kept = { ...accepted, at: 1 }
    }
    const clock: Clock = {
      now: () => this.#now as Monotonic,
      after: (ms, wake) => {
        const timer = { at: this.#now + ms, wake }
        this.#timers.add(timer)
        return () => void this.#timers.delete(timer)
      },
    }
    this.watch = new InventoryWatch({
      store: this,
      log: {
        append: async (event) => {
          if (this.broken) throw new Error('the disk is full')
          this.events.push(event)
          return undefined as never
        },
      },
      reauthorization: {
        withdraw: async (touches) => {
          const sessions = ['press-07/plc', 'press-07/hmi', 'press-08/plc'].filter((name) => {
            const [device, process] = name.split('/')
            return touches({ device, process } as never)
          })
          this.withdrawn.push(sessions)
          return []
        },
      },
      clock,
      now: () => 1_000_000,
      report: (error) => this.failures.push(error),
    })
  }

  inventory = async () => this.kept
  baseline = async () => this.accepted
  accept = async (_: string, baseline: Baseline) => void (this.accepted = baseline)
  putInventory = async (_: string, inventory: KeptInventory) => void (this.kept = inventory)

  /** Lets everything asynchronous that is under way come to its end. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve()
  }
  async tell(...targets: readonly ToldTarget[]): Promise<void> {
    this.watch.seen('press-07', inventory(...targets))
    await this.settle()
  }
  async pass(ms: number): Promise<void> {
    this.#now += ms
    for (const timer of this.#timers)
      if (timer.at <= this.#now) {
        this.#timers.delete(timer)
        timer.wake()
      }
    await this.settle()
  }
  codes(): readonly string[] {
    return this.events.map(({ code }) => code)
  }
}

describe('what is recorded of it', () => {
  test('the first time a device tells, and no time it tells the same', async () => {
    const house = new House()
    await house.tell(target())
    expect(house.codes()).toEqual(['device.inventory'])
    expect(house.events[0]?.message).toContain('no baseline')
    await house.tell(target())
    await house.pass(RECORD_EVERY_MS)
    expect(house.events).toHaveLength(1)
    expect(house.kept?.hash).toBe(inventory(target()).hash)
  })

  test('a device that comes back as it was kept is no event', async () => {
    const house = new House(inventory(target()))
    await house.tell(target())
    expect(house.events).toEqual([])
  })

  test('drift is a finding, and decides its sessions again', async () => {
    const house = new House(inventory(target()))
    await house.tell(other)
    expect(house.codes()).toEqual(['device.inventory', 'finding.drift'])
    expect(house.events[0]).toMatchObject({ device: 'press-07', data: { drift: true } })
    expect(JSON.stringify(house.events[1])).toContain('/tmp/other')
    expect(house.withdrawn).toEqual([['press-07/plc']])
  })

  test('a program that stopped is no finding, and cuts nobody', async () => {
    const house = new House(inventory(target()))
    await house.tell(absent)
    expect(house.codes()).toEqual(['device.inventory'])
    expect(house.events[0]).toMatchObject({ data: { drift: false } })
    expect(house.withdrawn).toEqual([[]])
  })

  test('one that flaps is recorded a few times, then once a minute with how often, and as it stays', async () => {
    const house = new House(inventory(target()))
    for (let turn = 0; turn < 500; turn++) await house.tell(turn % 2 === 0 ? other : target())
    const [drifted, mended] = [['device.inventory', 'finding.drift'], ['device.inventory']]
    expect(house.codes()).toEqual([...drifted, ...mended, ...drifted, ...mended])
    await house.pass(RECORD_EVERY_MS)
    expect(house.events).toHaveLength(7)
    expect(house.events[6]?.message).toContain('as before after 496 changes')
    await house.tell(other)
    expect(house.events).toHaveLength(7)
    // What is shown is what was told last, recorded yet or not.
    expect((await house.watch.current('press-07'))?.hash).toBe(inventory(other).hash)
    await house.pass(RECORD_EVERY_MS)
    expect(house.codes().slice(7)).toEqual(drifted)
    expect(house.kept?.hash).toBe(inventory(other).hash)
    // Every change was decided on, whatever was recorded.
    expect(house.withdrawn).toHaveLength(501)
    await house.pass(RECORDS_AT_ONCE * RECORD_EVERY_MS)
    expect(house.events).toHaveLength(9)
    await house.tell(target())
    await house.tell(other)
    expect(house.events).toHaveLength(12)
  })

  test('what the log does not take is not kept, and tried again', async () => {
    const house = new House(inventory(target()))
    house.broken = true
    await house.tell(other)
    expect(house.failures).toHaveLength(1)
    expect(house.kept?.hash).toBe(inventory(target()).hash)
    house.broken = false
    await house.pass(5000)
    expect(house.codes()).toEqual(['device.inventory', 'finding.drift'])
    expect(house.kept?.hash).toBe(inventory(other).hash)
  })

  test('an event keeps within the 32 KiB that the log takes, however much is other', async () => {
    const house = new House(inventory())
    const long = `/${'\u0001'.repeat(999)}`
    const many = Array.from({ length: 256 }, (_, at) =>
      target({ process: `p${at}`, listener: { ...seen(long), others: [seen(`${long}y`)] } }),
    )
    await house.tell(...many)
    for (const event of house.events) expect(JSON.stringify(event).length).toBeLessThan(20 * 1024)
    expect(house.kept?.processes).toHaveLength(256)
  })
})
