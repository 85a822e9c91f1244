/**
 * Step 7: the grant is revoked while a read loop runs. The connection is cut; how long that took is
 * measured by the gateway and by the vendor's own tool; coming back is refused.
 */
import type { EndedGrant } from '#api'
import { openConnection, readings, startReads, type Connection } from '../connection.ts'
import { expect, until } from '../failure.ts'
import { readLine } from '../programs.ts'
import type { Found, Stage } from '../stage.ts'

/** The bar for a cut, as for a revoked certificate: product promise "revoked means cut". */
const CUT_MS = 1_000
const LOOP_MS = 20

export async function revokeWhileReading(
  stage: Stage,
  before: Connection,
  grant: string,
): Promise<Found> {
  // The impostor may have ended that session already, or may be about to.
  await before.program.stop()
  const connection = await openConnection(stage, 'press-07/plc')
  const reads = startReads(stage, 0, LOOP_MS)
  await until('the read loop running', 15_000, () =>
    readings(reads).length >= 10 ? true : undefined,
  )
  const ended = (await stage.sallyport.ask(
    'operator',
    'revoke',
    grant,
    '--reason',
    'work order withdrawn',
  )) as EndedGrant
  expect(ended.grant.state === 'revoked', 'the grant to be revoked', ended.grant.state)
  const slowest = ended.cut.slowest_ms
  const cut = ended.cut.sessions.map(({ id }) => id)
  expect(
    cut.includes(connection.session),
    `session ${connection.session} to be among the cut`,
    ended.cut,
  )
  expect(slowest !== null && slowest < CUT_MS, `a cut within ${CUT_MS} ms`, slowest)
  const silence = await silenceOf(reads)
  expect(
    silence < CUT_MS,
    `the tool's connection to end within ${CUT_MS} ms of its last answer`,
    `${silence} ms`,
  )
  const exit = await connection.program.end
  expect(exit === 6, 'connect to end with exit code 6', exit)
  const told = await stage.sallyport.refused(
    'vendor',
    3,
    'connect',
    'press-07/plc',
    '--listen',
    '127.0.0.1:0',
  )
  return {
    found: [
      `time-to-cut ${slowest.toFixed(1)} ms by the gateway; ${silence.toFixed(1)} ms from the last good answer to the closed connection`,
      `coming back: ${told.code}: ${told.why}`,
    ],
  }
}

/** From the last register that arrived to the end of the connection, on the tool's own clock. */
async function silenceOf(reads: ReturnType<typeof startReads>): Promise<number> {
  await reads.end
  const last = readings(reads).at(-1)?.at ?? 0
  const closed = readLine(reads.lines.findLast((line) => line.includes('"closed"')) ?? '')?.['at']
  expect(
    typeof closed === 'number' && last > 0,
    'the tool to say when its connection ended',
    reads.lines.slice(-2),
  )
  return closed - last
}
