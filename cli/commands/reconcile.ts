/** `sallyport audit reconcile`: does a SIEM's own export hold every event, unaltered; if not, which. */
import { closeSync, createReadStream, existsSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import type { Counted, EpochReconciliation, EpochsReconciliation, Reconciliation } from '#audit'
import { CliError, Exited, usage, type Exit } from '../exit.ts'
import { readInteger } from '../input.ts'
import { readKeys } from '../keys.ts'
import { facts, plain, tell } from '../print.ts'
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
    .requiredOption(
      '--log <dir>',
      'the log, or a copy of it; or a node’s folder with all its epochs',
    )
    .requiredOption(
      '--key <file|vkey>',
      'a verifier key of the log, of any epoch; may be repeated',
      collect,
    )
    .requiredOption('--file <export>', 'what the SIEM exported: one event a line, in any wrapping')
    .option('--sink <name>', 'the sink the export belongs to: its cursor is shown')
    .option('--from <idx>', 'first event the sink was to have, 17 or 2/17; default the log’s first')
    .option(
      '--to <idx>',
      'last event the sink was to have, 17 or 2/17; default the last one signed',
    )
    .action(reconcileExport)
}

/** An index, and of which epoch, where that is said: `2/17`. */
interface Index {
  readonly epoch: number | null
  readonly idx: number
}

/** Throws usage for what is neither `17` nor, of several epochs, `2/17`. */
function readIndex(text: string | undefined, what: string, several: boolean): Index | undefined {
  if (text === undefined) return undefined
  const [epoch, idx] = text.includes('/') ? text.split(/\/(.*)/s) : [undefined, text]
  if (several !== (epoch !== undefined))
    throw usage(
      `--${what} ${text} does not say which event`,
      several
        ? 'of a log of several epochs give 2/17, event 17 of epoch 2'
        : 'give its index alone',
    )
  return {
    epoch: epoch === undefined ? null : readInteger(epoch, what, 1, 999_999_999),
    idx: readInteger(idx ?? '', what, 0, Number.MAX_SAFE_INTEGER - 1),
  }
}

/** Where the sink stands in each of these folders. Throws usage where it is known in none. */
function cursorsOf(
  sink: string | undefined,
  directories: readonly string[],
  cursorOf: (path: string) => number | null,
): (number | null)[] {
  if (sink === undefined) return []
  const cursors = directories.map((one) => cursorOf(join(one, 'ship', `${sink}.cur`)))
  if (cursors.every((cursor) => cursor === null))
    throw usage(`the log knows no sink ${sink}`, 'its cursors stand in ship/ of the log')
  return cursors
}

async function reconcileExport(flags: ReconcileFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { cursorOf, epochsIn, linesOf } = await import('#audit')
  if (!existsSync(flags.file)) throw usage(`there is no file ${flags.file}`)
  const places = existsSync(join(flags.log, 'checkpoint')) ? [] : epochsIn(flags.log)
  const several = places.length > 0
  demandText(flags.file)
  const from = readIndex(flags.from, 'from', several)
  const to = readIndex(flags.to, 'to', several)
  const directories = several ? places.map(({ directory }) => directory) : [flags.log]
  const cursors = cursorsOf(flags.sink, directories, cursorOf)
  const asked = {
    directory: flags.log,
    vkeys: flags.key.flatMap(readKeys),
    lines: linesOf(contents(flags.file)),
  }
  const found = await compared(flags.log, async () => {
    const { reconcile, reconcileEpochs } = await import('#audit')
    if (!several)
      return reconcile({
        ...asked,
        ...(from === undefined ? {} : { from: from.idx }),
        ...(to === undefined ? {} : { to: to.idx + 1 }),
      })
    return reconcileEpochs({
      ...asked,
      ...(from === undefined ? {} : { from: { epoch: from.epoch ?? 0, idx: from.idx } }),
      ...(to === undefined ? {} : { to: { epoch: to.epoch ?? 0, idx: to.idx + 1 } }),
    })
  })
  const sink = flags.sink ?? null
  if ('epochs' in found) {
    const at = new Map(places.map(({ epoch }, i) => [epoch, cursors[i] ?? null]))
    const epochs = found.epochs.map((one) => ({ ...one, cursor: at.get(one.epoch) ?? null }))
    tell(options, { sink, ...found, epochs }, epochLines(found, flags.sink, at))
  } else {
    const cursor = cursors[0] ?? null
    tell(options, { sink, cursor, ...found }, lines(found, flags.sink, cursor))
  }
  const exit = exits[found.outcome]
  if (exit !== 'ok') throw new Exited(exit)
}

/** Refuses what has no lines as they were sent, of which it would be said that every event is missing. Throws usage. */
function demandText(path: string): void {
  const begin = Buffer.alloc(4)
  const file = openSync(path, 'r')
  try {
    readSync(file, begin, 0, 4, 0)
  } finally {
    closeSync(file)
  }
  const is = (mark: string): boolean => begin.toString('hex').startsWith(mark)
  if (is('1f8b') || is('504b0304') || is('28b52ffd'))
    throw usage(`${path} is compressed`, 'unpack it first')
  if (is('fffe') || is('feff')) throw usage(`${path} is UTF-16`, 'export it as UTF-8')
}

/** What is wrong with the log itself, or with the question, is no answer. */
async function compared<T>(log: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    throw new CliError('the export cannot be compared', {
      code: 'log.violated',
      exit: 'usage',
      why: error instanceof Error ? error.message : String(error),
      next: `sallyport audit verify --log ${log} says what is wrong with the log`,
    })
  }
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

const heads: Readonly<Record<Reconciliation['outcome'], string>> = {
  complete: 'complete: the export holds every event as it was signed',
  violated: 'NOT COMPLETE: the export is not what was signed',
  'not-provable': 'not provable',
}

/** Where the sink was sent fields only nothing is said of what was signed. */
const headOf = ({ outcome }: Pick<Reconciliation, 'outcome'>, stubs: number): string =>
  outcome === 'complete' && stubs > 0
    ? 'complete by index: the export names every event, and not of all what was signed'
    : heads[outcome]

function lines(found: Reconciliation, sink: string | undefined, cursor: number | null): string[] {
  return [
    headOf(found, found.stubs),
    ...facts([
      ...(sink === undefined ? [] : [['sink', `${sink}, cursor at ${cursor ?? 0}`] as const]),
      ...counts(found),
      ['other lines', found.strange],
      ...(found.why === undefined ? [] : [['why', plain(found.why)] as const]),
    ]),
    ...named(found, ''),
    ...otherLogs(found),
  ]
}

/** All epochs of a node, the first one first. */
function epochLines(
  found: EpochsReconciliation,
  sink: string | undefined,
  cursors: ReadonlyMap<number, number | null>,
): string[] {
  const { before, why } = found
  return [
    headOf(
      found,
      found.epochs.reduce((sum, { stubs }) => sum + stubs, 0),
    ),
    ...facts([
      ...(why === undefined ? [] : [['why', plain(why)] as const]),
      ...(before === undefined
        ? []
        : [
            [
              'goes on from',
              `${plain(before.origin)}, ${before.size} events, not here and not looked for`,
            ] as const,
          ]),
      ['other lines', found.strange],
    ]),
    ...found.epochs.flatMap((one) => [
      '',
      `epoch ${one.epoch}: ${plain(one.origin)}`,
      ...facts([
        ...(sink === undefined
          ? []
          : [['sink', `${sink}, cursor at ${cursors.get(one.epoch) ?? 0}`] as const]),
        ...counts(one),
      ]),
      ...named(one, ` of epoch ${one.epoch}`),
      ...joint(one),
    ]),
    ...otherLogs(found),
  ]
}

function counts(found: Counted): (readonly [string, string | number])[] {
  const lost = found.missing.reduce((sum, run) => sum + run.to - run.from + 1, 0)
  return [
    ['looked for', found.to === found.from ? 'nothing' : `${found.from} to ${found.to - 1}`],
    ['verbatim', found.verbatim],
    ['fields only', found.stubs],
    ['duplicates', found.duplicates],
    ['missing', lost],
    ['altered', found.mismatched],
  ]
}

/** Each by its index, and `of` which epoch where there are several. */
function named(found: Counted, of: string): string[] {
  const runs = (all: Counted['missing'], what: string): string[] => [
    ...all
      .slice(0, shown)
      .map(({ from, to }) => `${what}: event ${from}${to > from ? ` to ${to}` : ''}${of}`),
    ...more(all),
  ]
  return [
    ...runs(found.missing, 'missing'),
    ...runs(found.repeated, 'more than once'),
    ...found.mismatches
      .slice(0, shown)
      .map(({ idx, line, what }) => `${what}: event ${idx}${of}, line ${line} of the export`),
    ...more(found.mismatches),
  ]
}

const more = (all: readonly unknown[]): string[] =>
  all.length > shown ? [`and ${all.length - shown} more`] : []

/** Where what is missing is a whole epoch, or what joins it to the next. */
function joint({ epoch, from, to, ended, missing }: EpochReconciliation): string[] {
  if (to > from && missing[0]?.from === from && missing[0].to === to - 1)
    return [`nothing of epoch ${epoch} is in the export`]
  return ended && missing.at(-1)?.to === to - 1
    ? [`the event that ends epoch ${epoch} is among those missing`]
    : []
}

function otherLogs({ others }: Pick<Reconciliation, 'others'>): string[] {
  return others.map(
    ({ origin, lines: n, line }) =>
      `of another log: ${n} ${n === 1 ? 'event' : 'events'} of ${plain(origin)}, first in line ${line} of the export`,
  )
}
