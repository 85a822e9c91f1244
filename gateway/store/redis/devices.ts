/** Devices (devices/device.ts) in Redis: one that is put into quarantine at one gateway is so at all of them; devicing.ts has the transactions. */
import type { RevocationReason } from '#ca'
import type { Device, DeviceState, Process } from '../../devices/device.ts'
import type { SharedDevices } from '../../devices/ending.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, strings, text, type Fields } from './row.ts'

/** A list is read so many at a time: no other command waits for all of it. */
const PAGE = 500

function deviceOf(fields: Fields): Device {
  const mark = fields.get('ended')
  return {
    id: text(fields, 'id'),
    zone: text(fields, 'zone'),
    // Only the scripts write it, and they write no other.
    state: text(fields, 'state') as DeviceState,
    labels: JSON.parse(text(fields, 'labels')) as Device['labels'],
    created_at: number(fields, 'createdAt'),
    ...(mark === undefined
      ? {}
      : {
          ending: {
            mark,
            reason: text(fields, 'endedWhy') as RevocationReason,
            compromised: fields.get('endedLeak') ?? null,
          },
        }),
  }
}

function optional(value: unknown): Device | undefined {
  const fields = fieldsOf(value)
  return fields.size === 0 ? undefined : deviceOf(fields)
}

const argsOf = ({ id, zone, state, labels, created_at }: Device): string[] => [
  id,
  zone,
  state,
  JSON.stringify(labels),
  String(created_at),
]

const byId = (a: Process, b: Process): number => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

/** Rejects with StoreError. */
export class RedisDeviceStore implements SharedDevices {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  readonly #page: number
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>, page = PAGE) {
    this.#redis = redis
    this.#page = page
  }

  async add(device: Device): Promise<boolean> {
    return (await this.#redis.write('addDevice', ...argsOf(device))) === 1
  }
  async find(id: string): Promise<Device | undefined> {
    return optional(await this.#redis.read('findDevice', id))
  }
  async list(): Promise<readonly Device[]> {
    const all: Device[] = []
    for (;;) {
      const after = all.at(-1)?.id ?? ''
      const rows = lists(await this.#redis.read('listDevices', after, String(this.#page)))
      all.push(...rows.map((row) => deviceOf(fieldsOf(row))))
      if (rows.length < this.#page) return all
    }
  }
  async move(
    id: string,
    from: readonly DeviceState[],
    to: DeviceState,
  ): Promise<Device | undefined> {
    return optional(await this.#redis.write('moveDevice', id, to, ...from))
  }
  async end(id: string, mark: string, reason: RevocationReason): Promise<Device | undefined> {
    return optional(await this.#redis.write('endDevice', id, mark, reason))
  }
  async putProcess(process: Process): Promise<void> {
    await this.#redis.write('putProcess', process.device, process.id, JSON.stringify(process))
  }
  async findProcess(device: string, id: string): Promise<Process | undefined> {
    const row = await this.#redis.read('findProcess', device, id)
    return typeof row === 'string' ? (JSON.parse(row) as Process) : undefined
  }
  async processes(device: string): Promise<readonly Process[]> {
    const rows = strings(await this.#redis.read('listProcesses', device))
    return rows.map((row) => JSON.parse(row) as Process).toSorted(byId)
  }

  /**
   * Takes over what a gateway has in its own file, at each of its starts: a device that is not here yet, with its processes;
   * and of one that is, that it is in quarantine there, which whoever lifts it here afterwards has lifted. Gives what was done.
   */
  async take(
    directory: string,
    device: Device,
    processes: readonly Process[],
  ): Promise<'taken' | 'quarantined' | 'known'> {
    const rows = processes.flatMap((one) => [one.id, JSON.stringify(one)])
    const said = await this.#redis.write('takeDevice', directory, ...argsOf(device), ...rows)
    return said === 'taken' || said === 'quarantined' ? said : 'known'
  }
}
