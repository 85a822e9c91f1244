/** `sallyport audit`: reading the log through the gateway, and proving a copy of it without one. */
import type { Command } from 'commander'
import type { LogEntry, LogPage } from '#api'
import type { EpochsVerdict, EpochVerdict, Verdict, VerifyOptions } from '#audit'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Exited, type Exit } from '../exit.ts'
import { readInteger, readText } from '../input.ts'
import { readKeys } from '../keys.ts'
import { facts, instant, layOut, plain, say, tell } from '../print.ts'
import { registerAuditor } from './auditor.ts'
import { registerEvidence } from './evidence.ts'
import { registerMirror } from './mirror.ts'
import { registerPrune } from './prune.ts'
import { registerReconcile } from './reconcile.ts'
import { registerRotate } from './rotate.ts'
import { registerWitness } from './witness.ts'
import { collect, globalOptions } from './options.ts'

interface TailFlags {
  readonly from?: string
  readonly limit: string
}
interface VerifyFlags {
  readonly log: string
  readonly key?: string[]
  readonly held?: string[]
  readonly witness?: string[]
  readonly quorum?: string
}

export function registerAudit(program: Command): void {
  const audit = program.command('audit').description('the log: reading it, proving it')
  audit
    .command('tail')
    .description('the newest events, or those from an index on')
    .option('--from <idx>', 'first index')
    .option('--limit <count>', 'how many at most', '50')
    .action(tail)
  audit
    .command('verify')
    .description(
      'prove a log directory against its signed checkpoints; needs no gateway and no network',
    )
    .requiredOption(
      '--log <dir>',
      'the log, or a copy of it; or a node’s folder with all its epochs',
    )
    .option(
      '--key <file|vkey>',
      'a verifier key, or a file with one a line; may be repeated',
      collect,
    )
    .option('--held <file>', 'a signed checkpoint kept from earlier; may be repeated', collect)
    .option(
      '--witness <file|vkey>',
      'a key of a mirror whose cosignature is wanted; may be repeated',
      collect,
    )
    .option('--quorum <count>', 'how many witnesses must have cosigned; default all named')
    .action(verify)
  registerAuditor(audit)
  registerEvidence(audit)
  registerReconcile(audit)
  registerMirror(audit)
  registerPrune(audit)
  registerRotate(audit)
  registerWitness(audit)
}

async function tail(flags: TailFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const limit = readInteger(flags.limit, 'limit', 1, 100_000)
  const from =
    flags.from === undefined
      ? undefined
      : readInteger(flags.from, 'from', 0, Number.MAX_SAFE_INTEGER)
  const { openApi, LogPage: schema } = await import('../client.ts')
  const api = await openApi(options)
  const read: Read = async (at, count) =>
    api.call(schema, 'GET', `/audit/events?from=${at}&limit=${count}`)
  const page = await readPages(read, from ?? (await newest(read, limit)), limit)
  if (options.json) say(JSON.stringify(page))
  else
    say(
      layOut({
        head: ['idx', 'time', 'event', 'message'],
        rows: page.entries.map(line),
        empty: 'no events',
      }),
    )
}

type Read = (from: number, limit: number) => Promise<LogPage>

/** Events may have 32 KiB each: pages this small stay well below what one answer may have. */
const PAGE = 200

/** Up to `limit` events from `from` on, as one page. */
async function readPages(read: Read, from: number, limit: number): Promise<LogPage> {
  let page = await read(from, Math.min(limit, PAGE))
  const entries = [...page.entries]
  while (page.next !== null && page.entries.length > 0 && entries.length < limit) {
    page = await read(page.next, Math.min(limit - entries.length, PAGE))
    entries.push(...page.entries)
  }
  return { ...page, entries }
}

/** Where the last `limit` signed events begin; the size stands in the second line of the checkpoint. */
async function newest(read: Read, limit: number): Promise<number> {
  const { checkpoint } = await read(0, 1)
  const size = Number(checkpoint.split('\n')[1] ?? '0')
  return Math.max(0, (Number.isSafeInteger(size) ? size : 0) - limit)
}

function line(entry: LogEntry): [number, string, string, string] {
  const event = typeof entry.event === 'object' && entry.event !== null ? entry.event : {}
  const metadata = 'metadata' in event && typeof event.metadata === 'object' ? event.metadata : null
  const code = metadata !== null && 'event_code' in metadata ? String(metadata.event_code) : '-'
  const time =
    'time' in event && typeof event.time === 'number' ? new Date(event.time).toISOString() : '-'
  return [entry.idx, time, code, 'message' in event ? String(event.message) : '']
}

const outcomes: Readonly<Record<Verdict['outcome'], Exit>> = {
  proven: 'ok',
  violated: 'failed',
  'not-provable': 'usage',
}

async function verify(flags: VerifyFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { epochsIn, verifyEpochs, verifyLog } = await import('#audit')
  const quorum = flags.quorum === undefined ? undefined : readInteger(flags.quorum, 'quorum', 1, 64)
  const asked: VerifyOptions = {
    directory: flags.log,
    verifierKeys: (flags.key ?? []).flatMap(readKeys),
    held: (flags.held ?? []).map((path) => readText(path, 'checkpoint')),
    witnessKeys: (flags.witness ?? []).flatMap(readKeys),
    ...(quorum === undefined ? {} : { quorum }),
  }
  const whole = !existsSync(join(flags.log, 'checkpoint')) && epochsIn(flags.log).length > 0
  const verdict = whole ? await verifyEpochs(asked) : await verifyLog(asked)
  tell(options, verdict, 'epochs' in verdict ? epochLines(verdict) : verdictLines(verdict))
  const exit = outcomes[verdict.outcome]
  if (exit !== 'ok') throw new Exited(exit)
}

/** All epochs of a node, the first one first. */
function epochLines({ outcome, why, before, epochs }: EpochsVerdict): string[] {
  const head = {
    proven: 'proven: every epoch is what its checkpoints signed, and each goes on from the last',
    violated: 'VIOLATED: the log is not what was signed',
    'not-provable': 'not provable',
  }[outcome]
  const said = why === undefined ? [] : [['why', plain(why)] as const]
  const from =
    before === undefined
      ? []
      : [['goes on from', `${before.origin}, ${before.size} events, not here`] as const]
  return [head, ...facts([...said, ...from]), ...epochs.flatMap(epochFacts)]
}

function epochFacts({ epoch, verdict }: EpochVerdict): string[] {
  return ['', `epoch ${epoch}: ${verdictLines(verdict)[0]}`, ...verdictLines(verdict).slice(1)]
}

function verdictLines(verdict: Verdict): string[] {
  const head = {
    proven: 'proven: the log is what its checkpoints signed',
    violated: 'VIOLATED: the log is not what was signed',
    'not-provable': 'not provable',
  }[verdict.outcome]
  const place = verdict.place
  return [
    head,
    ...facts([
      ['events', verdict.events],
      ...(verdict.pruned === undefined
        ? []
        : [['pruned', `the first ${verdict.pruned}: their hashes are left`] as const]),
      ['not yet signed', verdict.uncovered],
      ['checkpoints', verdict.checkpoints],
      ['origin', verdict.checkpoint?.origin],
      ['root', verdict.checkpoint?.root],
      ...(verdict.opening === undefined
        ? []
        : [['goes on from', verdict.opening.predecessor] as const]),
      ...(verdict.closing === undefined
        ? []
        : [['ended, goes on as', verdict.closing.successor] as const]),
      ...(verdict.witnesses ?? []).map(
        ({ name, size, at }) =>
          ['witness', `${name} cosigned ${size} events at ${instant(at)}`] as const,
      ),
      ...(verdict.why === undefined ? [] : [['why', verdict.why] as const]),
    ]),
    ...(place === undefined
      ? []
      : facts([
          ['event', place.idx],
          ['file', place.segment],
          ['offset', place.offset],
          ['what', plain(place.what)],
        ])),
  ]
}
