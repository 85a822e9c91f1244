/**
 * `npm run demo`: the main job, played on this machine by separate processes, with one line a step.
 * `npm run demo -- --check` plays it without a terminal, prints the table, ends everything, and exits 0
 * only if every step did what it says. steps/ holds one file a step.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { StepFailed } from './failure.ts'
import { choosePorts } from './ports.ts'
import { invite } from './invitation.ts'
import { lineReport, table, type Report, type Row } from './report.ts'
import { prepare } from './prepare.ts'
import { setStage, type Found, type Stage } from './stage.ts'
import { enrol } from './steps/01-enrol.ts'
import { dialOut } from './steps/02-dial.ts'
import { deniedWithoutGrant } from './steps/03-denied.ts'
import { askAndApprove } from './steps/04-grant.ts'
import { useGrant } from './steps/05-use.ts'
import { refuseImpostor } from './steps/06-impostor.ts'
import { revokeWhileReading } from './steps/07-revoke.ts'
import { proveLog } from './steps/08-prove.ts'
import { killAndRestart } from './steps/09-restart.ts'

type Play = <T extends Found>(title: string, step: () => Promise<T>) => Promise<T>

/** Plays the steps in order; each takes what earlier ones made. Throws what the first failing step throws. */
async function playAll(stage: Stage, report: Report, play: Play): Promise<void> {
  report.say(
    'a gateway starts from embedded defaults; a syslog receiver; an administrator and an operator sign in',
  )
  const { gateway, executables, received } = await prepare(stage)
  const enrolled = await play('one-time tokens enrol two devices over EST', () =>
    enrol(stage, gateway),
  )
  const connected = await play('both agents dial out and are connected; nothing listens', () =>
    dialOut(stage, enrolled, executables),
  )
  await play('a vendor signs in and is denied without a grant', () =>
    deniedWithoutGrant(stage, gateway),
  )
  const { grant } = await play(
    'the vendor asks for one process and two minutes; an operator approves',
    () => askAndApprove(stage),
  )
  const { connection } = await play('the vendor reads registers and opens the HMI', () =>
    useGrant(stage, gateway),
  )
  await play('another executable on the port is refused', () =>
    refuseImpostor(stage, connection, connected.plc, executables),
  )
  await play('the grant is revoked and the connection cut', () =>
    revokeWhileReading(stage, connection, grant),
  )
  await play('every event arrived at the SIEM; the log is proven', () =>
    proveLog(stage, gateway, received),
  )
  await play('the gateway is killed and comes back with everything', () =>
    killAndRestart(stage, gateway, connected.agents, grant),
  )
  if (!process.argv.includes('--check')) report.say(await invite(stage, gateway))
}

async function main(): Promise<number> {
  const check = process.argv.includes('--check')
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-demo-'))
  const stage = setStage(directory, await choosePorts(!check))
  process.on('exit', () => stage.programs.killAll())
  const report = lineReport(process.stdout)
  const rows: Row[] = []
  const interrupted = interruption()
  const playing = playAll(stage, report, recorder(report, rows))
  let failed: unknown
  try {
    const how = await Promise.race([playing, interrupted])
    if (how !== 'interrupted' && !check) await interrupted
    if (how === 'interrupted') failed = how
  } catch (error) {
    failed = error
  }
  // What still plays after an interruption will fail on its ended programs; it has been told of already.
  playing.catch(() => {})
  await stage.programs.stopAll()
  if (check && rows.length > 0) report.say(`\n${table(rows)}`)
  if (failed !== undefined) say(failed, report, rows, directory)
  else rmSync(directory, { recursive: true, force: true })
  return failed === undefined ? 0 : 1
}

function recorder(report: Report, rows: Row[]): Play {
  return async (title, step) => {
    const number = rows.length + 1
    const began = performance.now()
    const end = (passed: boolean, found: readonly string[]): void => {
      const row = { step: number, title, passed, ms: performance.now() - began, found }
      rows.push(row)
      report.end(row)
    }
    report.begin(number, title)
    try {
      const done = await step()
      end(true, done.found)
      return done
    } catch (error) {
      end(
        false,
        error instanceof StepFailed
          ? [`expected ${error.expected}`, `saw ${error.seen}`]
          : [String(error)],
      )
      throw error
    }
  }
}

/** Resolves at the first Ctrl-C, end or hang-up; the second ends everything at once. */
async function interruption(): Promise<'interrupted'> {
  const { promise, resolve } = Promise.withResolvers<'interrupted'>()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => resolve('interrupted'))
  return promise
}

function say(failed: unknown, report: Report, rows: readonly Row[], directory: string): void {
  if (failed === 'interrupted') {
    rmSync(directory, { recursive: true, force: true })
    report.say('interrupted; everything that was started has ended')
    return
  }
  // A step that failed has said so in its line; what failed before the first one, or is a fault of ours, has not.
  if (!(failed instanceof StepFailed)) console.error(failed)
  else if (rows.length === 0) report.say(`NO  before the first step: ${failed.message}`)
  report.say(`what every program said is kept in ${directory}`)
}

// The event loop may hold a child's pipe for a moment after it ended; the demo is over when this is.
process.exit(await main())
