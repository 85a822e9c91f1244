/** Peers as life has them, in processes of their own: one that is stopped, one that reads nothing, a cable that is cut. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { until } from '../support/node.ts'

const program = fileURLToPath(new URL('peer.ts', import.meta.url))

interface Peer {
  readonly child: ChildProcess
  readonly said: Record<string, unknown>[]
  tell(line: string): void
  /** What it said with all of `what` in it. */
  until(what: Record<string, unknown>): Promise<Record<string, unknown>>
}

const children: ChildProcess[] = []
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const over = once(child, 'close')
    child.kill('SIGKILL')
    await over
  }
})

function peer(how: string, host: string, port: number, inside?: string, each = 200): Peer {
  const command = [process.execPath, program, how, host, String(port), String(each)]
  const [run = '', ...args] =
    inside === undefined ? command : ['ip', 'netns', 'exec', inside, ...command]
  const child = spawn(run, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  const said: Record<string, unknown>[] = []
  createInterface({ input: child.stdout }).on('line', (line) =>
    said.push(JSON.parse(line) as Record<string, unknown>),
  )
  child.stdin.on('error', () => {})
  return {
    child,
    said,
    tell: (line) => void child.stdin.write(`${line}\n`),
    until: async (what) =>
      await until(
        `${JSON.stringify(what)} of ${how}; it said ${JSON.stringify(said.slice(-5))}`,
        () => said.find((one) => Object.entries(what).every(([key, value]) => one[key] === value)),
      ),
  }
}

/** `each`: how many ms at least between two keepalives. */
async function joined(at = '127.0.0.1', from?: string, to?: string, each?: number) {
  const gateway = peer('listen', at, 0, from, each)
  const { port } = await gateway.until({ event: 'listening' })
  const agent = peer('dial', at, Number(port), to, each)
  await Promise.all([gateway.until({ event: 'up' }), agent.until({ event: 'up' })])
  return { gateway, agent }
}

test('a peer that is stopped is silent, its streams end, and when it wakes it learns that it was left', async () => {
  const { gateway, agent } = await joined()
  gateway.tell('write 65536')
  await gateway.until({ wrote: 65_536 })
  agent.child.kill('SIGSTOP')
  expect(await gateway.until({ event: 'down' })).toMatchObject({
    code: 'peer.silent',
    fault: 'remote',
  })
  await gateway.until({ closed: 'peer.silent' })
  agent.child.kill('SIGCONT')
  const woke = await agent.until({ event: 'down' })
  expect(['peer.lost', 'peer.silent', 'carrier.failed', 'frame.truncated']).toContain(woke['code'])
})

test('a reader that is slow stops its own stream; beside it another one is whole', async () => {
  // Nobody is lost here, however long a busy machine keeps one of them waiting.
  const { gateway, agent } = await joined('127.0.0.1', undefined, undefined, 20_000)
  agent.tell(`write ${16 * 2 ** 20}`)
  await until('the writer is held up', () => agent.said.some((one) => 'stalled' in one))
  agent.tell(`write ${8 * 2 ** 20}`)
  await agent.until({ wrote: 8 * 2 ** 20 })
  await gateway.until({ got: 8 * 2 ** 20, id: 3 })
  // What the slow one holds is its window, not what was written.
  const held = gateway.said.filter(({ id }) => id === 1).at(-1)
  expect(held?.['got']).toBeLessThanOrEqual(256 * 1024)
  gateway.tell('read')
  await gateway.until({ got: 16 * 2 ** 20, id: 1 })
})

test('a peer that takes nothing from its socket is written to until a window is full, and no more', async () => {
  const { gateway, agent } = await joined()
  gateway.tell(`write ${1024 * 2 ** 20}`)
  await gateway.until({ opened: 2 })
  agent.child.kill('SIGSTOP')
  await gateway.until({ event: 'down' })
  const last = gateway.said.filter((one) => 'stalled' in one).at(-1)
  expect(Number(last?.['stalled'] ?? 0)).toBeLessThan(64 * 2 ** 20)
  expect(gateway.said.some((one) => 'wrote' in one)).toBe(false)
})

const netns = spawnSync('ip', ['netns', 'add', `sp${process.pid}x`]).status === 0
if (netns) spawnSync('ip', ['netns', 'del', `sp${process.pid}x`])

describe.skipIf(!netns)('network namespaces', () => {
  const [one, two] = [`sp${process.pid}a`, `sp${process.pid}b`]
  const ip = (...args: string[]) => {
    const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`)
  }
  afterEach(() => {
    for (const name of [one, two]) spawnSync('ip', ['netns', 'del', name])
  })

  test('a cable that is cut: both ends know after three silent intervals', async () => {
    for (const name of [one, two]) ip('netns', 'add', name)
    ip('link', 'add', 'sp0', 'netns', one, 'type', 'veth', 'peer', 'name', 'sp0', 'netns', two)
    for (const [name, address] of [
      [one, '10.77.0.1/24'],
      [two, '10.77.0.2/24'],
    ] as const) {
      ip('-n', name, 'addr', 'add', address, 'dev', 'sp0')
      ip('-n', name, 'link', 'set', 'sp0', 'up')
    }
    const { gateway, agent } = await joined('10.77.0.1', one, two)
    agent.tell('write 65536')
    await agent.until({ wrote: 65_536 })
    expect([...gateway.said, ...agent.said].filter((said) => said['event'] === 'down')).toEqual([])
    ip('-n', two, 'link', 'set', 'sp0', 'down')
    const [here, there] = await Promise.all([
      gateway.until({ event: 'down' }),
      agent.until({ event: 'down' }),
    ])
    expect([here['code'], there['code']]).toEqual(['peer.silent', 'peer.silent'])
    await agent.until({ closed: 'peer.silent' })
  })
})
