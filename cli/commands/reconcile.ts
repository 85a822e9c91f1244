/** `sallyport audit reconcile`: does a SIEM's own export hold every event, unaltered; if not, which. */
import { createReadStream, existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import type { Reconciliation } from '#audit'
import { CliError, Exited, usage, type Exit } from '../exit.ts'
import { readInteger } from '../input.ts'
import { readKeys } from '../keys.ts'
import { facts, tell } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface ReconcileFlags {
  readonly log: string
  readonly key: string[]
  readonly file: string
  readonly sink?: string
  readonly from?: string
  readonly to?: string
}

export function registerReconcile(audit: Command): void {
  audit
    .command('reconcile')
    .description('prove by a SIEM’s own export that it has every event, or name what it lacks')
    .requiredOption('--log <dir>', 'the log, or a copy of it')
    .requiredOption('--key <file|vkey>', 'a verifier key of the log; may be repeated', collect)
    .requiredOption('--file <export>', 'what the SIEM exported: one event a line, in any wrapping')
    .option('--sink <name>', 'the sink the export belongs to: its cursor is shown')
    .option('--from <idx>', 'first event the sink was to have; default the log’s first')
    .option('--to <idx>', 'last event the sink was to have; default the last one signed')
    .action(reconcileExport)
}

async function reconcileExport(flags: ReconcileFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { cursorOf, linesOf, reconcile } = await import('#audit')
  if (!existsSync(flags.file)) throw usage(`there is no file ${flags.file}`)
  const index = (text: string | undefined, what: string): number | undefined =>
    text === undefined ? undefined : readInteger(text, what, 0, Number.MAX_SAFE_INTEGER - 1)
  const from = index(flags.from, 'from')
  const to = index(flags.to, 'to')
  const cursor =
    flags.sink === undefined ? null : cursorOf(join(flags.log, 'ship', `${flags.sink}.cur`))
  if (flags.sink !== undefined && cursor === null)
    throw usage(`the log knows no sink ${flags.sink}`, 'its cursors stand in ship/ of the log')
  let found: Reconciliation
  try {
    found = await reconcile({
      directory: flags.log,
      vkeys: flags.key.flatMap(readKeys),
      lines: linesOf(contents(flags.file)),
      ...(from === undefined ? {} : { from }),
      ...(to === undefined ? {} : { to: to + 1 }),
    })
  } catch (error) {
    throw new CliError('the export cannot be compared', {
      code: 'log.violated',
      exit: 'usage',
      why: error instanceof Error ? error.message : String(error),
      next: `sallyport audit verify --log ${flags.log} says what is wrong with the log`,
    })
  }
  tell(options, { sink: flags.sink ?? null, cursor, ...found }, lines(found, flags.sink, cursor))
  const exit = exits[found.outcome]
  if (exit !== 'ok') throw new Exited(exit)
}

/** Opened when it is first read from: a question refused before that leaves no file open. */
async function* contents(path: string): AsyncGenerator<Uint8Array> {
  for await (const chunk of createReadStream(path)) yield chunk as Buffer
}

const exits: Readonly<Record<Reconciliation['outcome'], Exit>> = {
  complete: 'ok',
  violated: 'failed',
  'not-provable': 'usage',
}

const shown = 20

function lines(found: Reconciliation, sink: string | undefined, cursor: number | null): string[] {
  const head = {
    complete: 'complete: the export holds every event as it was signed',
    violated: 'NOT COMPLETE: the export is not what was signed',
    'not-provable': 'not provable',
  }[found.outcome]
  const lost = found.missing.reduce((sum, run) => sum + run.to - run.from + 1, 0)
  const more = (all: readonly unknown[]): string[] =>
    all.length > shown ? [`and ${all.length - shown} more`] : []
  return [
    head,
    ...facts([
      ...(sink === undefined ? [] : [['sink', `${sink}, cursor at ${cursor ?? 0}`] as const]),
      ['looked for', found.to === 0 ? 'nothing' : `${found.from} to ${found.to - 1}`],
      ['verbatim', found.verbatim],
      ['fields only', found.stubs],
      ['duplicates', found.duplicates],
      ['missing', lost],
      ['altered', found.mismatches.length],
      ['other lines', found.strange],
      ...(found.why === undefined ? [] : [['why', found.why] as const]),
    ]),
    ...found.missing
      .slice(0, shown)
      .map((run) => `missing: event ${run.from}${run.to > run.from ? ` to ${run.to}` : ''}`),
    ...more(found.missing),
    ...found.mismatches
      .slice(0, shown)
      .map(({ idx, line, what }) => `${what}: event ${idx}, line ${line} of the export`),
    ...more(found.mismatches),
  ]
}
