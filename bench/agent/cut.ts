/**
 * How long a session outlives its process: real programs, each with one connection by a real agent,
 * that run another program in place, or are killed, at instants spread over the second between two looks.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Directory, enrolled, running } from '../../test/agent/device.ts'
import { FakeGateway, openStream, proceed, soon } from '../../test/agent/gateway.ts'
import type { Opened } from '../../test/agent/gateway.ts'
import { startProgram } from '../../test/agent/programs/process.ts'
import type { Started } from '../../test/agent/programs/process.ts'
import type { Row } from '../row.ts'

const PYTHON = '/usr/bin/python3'
/** Accepts once; at the first octet it becomes another program, which keeps the connection. */
const TURNING = `
import os, socket
door = socket.socket()
door.bind(('127.0.0.1', 0))
door.listen()
print(door.getsockname()[1], flush=True)
line, _ = door.accept()
line.set_inheritable(True)
line.recv(1)
os.execv('/bin/sleep', ['sleep', '600'])
`
/** Looks at the owners that are known come each second; the rest is the looking. */
const CUT_P99_MS = 1100

interface Sample {
  readonly program: Started
  readonly opened: Opened
  /** The program's side has ended: nobody is there any more. */
  readonly ended: Promise<void>
}

/** From `act` until the stream is closed or has ended, ms; the acts are spread over a second. */
async function timeToCut(
  samples: readonly Sample[],
  act: (sample: Sample) => void,
): Promise<number[]> {
  return await Promise.all(
    samples.map(async (sample, at) => {
      await sleep((1000 * at) / samples.length)
      const began = performance.now()
      act(sample)
      await soon('the cut', Promise.race([sample.opened.closed, sample.ended]))
      return performance.now() - began
    }),
  )
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** Row `scope_cut_p99_ms`. */
export async function scopeCut(quick: boolean): Promise<Row[]> {
  const count = quick ? 40 : 120
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  await using programs = new AsyncDisposableStack()
  const started: Started[] = []
  for (let at = 0; at < count; at++)
    started.push(programs.use(await startProgram('', ['-c', TURNING], { exe: PYTHON, bare: true })))
  const targets = started.map(({ port }, at) => `p${at}=tcp:127.0.0.1:${port}`)
  await using _agent = running(await enrolled(gateway, directory, targets))
  const held = await gateway.nextTunnel()
  const samples: Sample[] = []
  for (const [at, program] of started.entries()) {
    const opened = await openStream(held, `p${at}`)
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    opened.stream.onEnd = resolve
    proceed(opened)
    samples.push({ program, opened, ended })
  }
  // A first round of looks has passed over all of them.
  await sleep(2000)
  const killed = samples.slice(0, count / 4)
  const exits = await timeToCut(killed, ({ program }) => void program.child.kill('SIGKILL'))
  const turns = await timeToCut(samples.slice(killed.length), ({ opened }) => {
    opened.stream.write(Buffer.from('x'))
  })
  return [
    {
      metric: 'scope_cut_p99_ms',
      value: quantile(turns, 0.99),
      unit: 'ms',
      reference: `<= ${CUT_P99_MS} ms from exec of another program in place to the stream's end; ${turns.length} sessions`,
      spread: `p50 ${quantile(turns, 0.5).toFixed(0)} ms; killed: p99 ${quantile(exits, 0.99).toFixed(0)} ms`,
    },
  ]
}
