/**
 * Step 6: another executable takes over the target's port. The next connection is refused, because
 * the process observed on the device is not the one the grant names; the log says which was found.
 */
import { basename } from 'node:path'
import type { LogEntry } from '#api'
import { readings, startReads, type Connection } from '../connection.ts'
import { expect, until } from '../failure.ts'
import { codeOf, find, readEvents } from '../log.ts'
import { readLine, type Program } from '../programs.ts'
import type { Found, Stage } from '../stage.ts'
import { startPlc, type Executables } from '../targets.ts'

export interface Exposed extends Found {
  readonly plc: Program
}

const MISMATCH = 'process.mismatch'

export async function refuseImpostor(
  stage: Stage,
  connection: Connection,
  plc: Program,
  executables: Executables,
): Promise<Exposed> {
  const from = (await readEvents(stage)).entries.length
  await plc.stop()
  const impostor = await startPlc(stage, executables.impostor, 'impostor')
  const said = connection.program.lines.length
  const reads = startReads(stage, 1, 100)
  await reads.end
  expect(readings(reads).length === 0, 'not one register from the impostor', reads.lines)
  const reason = await refusalOf(connection.program, said)
  expect(reason === MISMATCH, `the connection to be refused with ${MISMATCH}`, reason)
  const event = await until('an event that names the impostor', 10_000, async () =>
    (await readEvents(stage, from)).entries.find((entry) =>
      executablesIn(entry).includes(executables.impostor.path),
    ),
  )
  await impostor.stop()
  const real = await startPlc(stage, executables.plc, 'plc-again')
  return {
    plc: real,
    found: [
      `refused with ${reason}`,
      `event ${event.idx} ${codeOf(event)} names ${basename(executables.impostor.path)}`,
    ],
  }
}

/** Why `connect` did not pass the connection on: it was refused, or the whole session was ended. */
async function refusalOf(program: Program, from: number): Promise<unknown> {
  return program.line(
    'the refusal',
    15_000,
    (text) => {
      const line = readLine(text)
      if (line?.['event'] !== 'refused' && line?.['event'] !== 'ending') return undefined
      return find(line['reason'], 'code')
    },
    from,
  )
}

/** The executables that an event says were observed. */
function executablesIn(entry: LogEntry): unknown[] {
  const observed = find(entry.event, 'observed')
  const exe = find(observed, 'exe')
  return exe === undefined ? [find(entry.event, 'exe')] : [exe]
}
