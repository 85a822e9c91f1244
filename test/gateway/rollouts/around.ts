/** The rollouts of a node in memory: four devices, a log that may fail, and time that passes by hand. */
import { generateKeyPairSync, hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect } from 'vitest'
import type { AuditLog, EventInput } from '#audit'
import { signUpdate, type Update } from '#update'
import type { Device } from '../../../gateway/devices/device.ts'
import { RolledAgents } from '../../../gateway/rollouts/agents.ts'
import type { By, NewRollout } from '../../../gateway/rollouts/asked.ts'
import { Rollouts } from '../../../gateway/rollouts/rollouts.ts'
import type { Said } from '../../../gateway/rollouts/said.ts'
import { SqliteRolloutStore } from '../../../gateway/store/sqlite/rollouts.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { HandClock } from '../../support/clock.ts'

const { privateKey } = generateKeyPairSync('ed25519')
export const BUNDLE = Buffer.from('an agent')
export const START_S = 1_800_000_000

export function manifestOf(change: Partial<Update> = {}): string {
  const facts = { from: '0.1.0', node: '26.10.0', health: 300, notAfter: START_S + 86_400 }
  const sha256 = hash('sha256', BUNDLE, 'hex')
  return signUpdate(
    { version: '0.2.0', sha256, size: BUNDLE.length, ...facts, ...change },
    privateKey,
  )
}

export const by = {
  subject: {
    id: 'iss|oda',
    email: 'oda@plant.example',
    vendor: null,
    party: 'staff',
    issuer: 'iss',
    authn: {
      methods: ['password'],
      acr: '1',
      at: START_S,
    },
  },
  source: { ip: '192.0.2.7' },
  decision: { id: 'd_1', revision: 'r1', codes: [] },
} as unknown as By

export const asked = (more: Partial<NewRollout> = {}): NewRollout => ({
  manifest: manifestOf(),
  zone: null,
  stages: [100],
  soak_s: 0,
  max_failures: 0,
  reason: 'service',
  ...more,
})

export const idle: Said = {
  version: '0.1.0',
  trial: null,
  taking: null,
  outcome: null,
  refused: null,
}

/** A connected device, and what it was told. */
export class Connected {
  readonly device: string
  readonly told: Record<string, unknown>[] = []
  constructor(device: string) {
    this.device = device
  }
  readonly say = (message: Readonly<Record<string, unknown>>) => void this.told.push(message)
  get offered(): number {
    return this.told.filter(({ act }) => act === 'offer').length
  }
}

export let folder: string
export let clock: HandClock
export let events: EventInput[]
export let devices: Device[]
export let rollouts: Rollouts
export let agents: RolledAgents
let seconds: number

/** The node's own: whether its log takes anything, how many events at the most, and what was reported of it. */
export const log = { fails: false, most: Infinity, reports: 0 }

/** So much later by the wall clock, in seconds. */
export function pass(more: number): void {
  seconds += more
}

/** A new node for each row of a file; what was reported, the row says. */
export function aNode(): void {
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sallyport-rollouts-'))
    const thread = await SqliteThread.open(':memory:')
    seconds = START_S
    clock = new HandClock()
    events = []
    Object.assign(log, { fails: false, most: Infinity, reports: 0 })
    devices = ['a', 'b', 'c', 'd'].map((id) => ({
      id,
      zone: 'default',
      state: 'active',
      labels: {},
      created_at: START_S,
    }))
    agents = new RolledAgents(join(folder, 'updates'))
    rollouts = new Rollouts({
      store: new SqliteRolloutStore(thread),
      devices: { list: async () => devices },
      agents,
      log: {
        append: (async (event: EventInput) => {
          if (log.fails || events.length >= log.most) throw new Error('no room')
          events.push(event)
        }) as unknown as AuditLog['append'],
      },
      clock,
      now: () => seconds * 1000,
      report: () => void log.reports++,
    })
    return async () => {
      rollouts[Symbol.dispose]()
      await thread[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true })
      expect(log.reports).toBe(0)
    }
  })
}

export const codes = () =>
  events.map(
    ({ code, data }) => `${code} ${String(Object(data)['act'] ?? Object(data)['outcome'])}`,
  )
export const states = async (id: string) =>
  Object.fromEntries(
    (await rollouts.updates(id, 100)).map((one) => [one.device, one.code ?? one.state]),
  )

export async function connect(device: string, said: Partial<Said> = {}): Promise<Connected> {
  const one = new Connected(device)
  await rollouts.heard(one, { ...idle, ...said })
  return one
}
