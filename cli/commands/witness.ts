/** `sallyport audit witness`: the heads of a log that were shown to somebody outside, listed, exported, compared. */
import type { Command } from 'commander'
import type { Kept, Verdict } from '#audit'
import type { HeadKeeper } from '#heads'
import { CliError, Exited, usage, type Exit } from '../exit.ts'
import { readText } from '../input.ts'
import { readKeys } from '../keys.ts'
import { writeOut } from '../output.ts'
import { instant, say, show, tell } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface Where {
  readonly data?: string
}

const DATA = ['--data <dir>', 'the data directory of an agent; default this sign-in’s own'] as const

export function registerWitness(audit: Command): void {
  const witness = audit
    .command('witness')
    .description('the heads of a gateway’s log that were shown to you, or to a device')
  witness
    .command('show')
    .description('what is kept')
    .option(...DATA)
    .action(list)
  witness.command('check').description('have the gateway show its log now').action(check)
  witness
    .command('export')
    .description('the signed heads that are kept, for whoever compares them')
    .option(...DATA)
    .option('--out <file>', 'default: standard output')
    .action(exportHeads)
  witness
    .command('compare')
    .description('whether heads that several people and devices kept are of one history')
    .argument('<file...>', 'what `export` wrote')
    .requiredOption('--key <file|vkey>', 'a verifier key of the log; may be repeated', collect)
    .option('--log <dir>', 'the log or a mirror: with it heads of different sizes can be told too')
    .action(compare)
  witness
    .command('accept')
    .description('believe a log of another name too: a second gateway, or one that was set up anew')
    .requiredOption('--origin <origin>', 'the log’s name')
    .option(
      '--key <file|vkey>',
      'a verifier key of it, not to depend on what is shown; may be repeated',
      collect,
    )
    .option(...DATA)
    .action(accept)
  witness
    .command('forget')
    .description('let go of a log’s head: the next one shown is believed')
    .requiredOption('--origin <origin>', 'the log’s name')
    .option(...DATA)
    .action(forget)
}

async function keeperOf({ data }: Where, command: Command): Promise<HeadKeeper> {
  const { openKeeper } = await import('../witness.ts')
  if (data !== undefined) return await openKeeper(data)
  const { profileDirectory, serviceFile, witnessDirectory } = await import('../profile.ts')
  const { profile } = globalOptions(command)
  const service = serviceFile()
  if (service === undefined) return await openKeeper(profileDirectory(profile))
  const { loadServiceFile } = await import('../login/index.ts')
  const { gateway } = await loadServiceFile(service)
  return await openKeeper(witnessDirectory(profile, new URL(gateway)))
}

async function list(where: Where, command: Command): Promise<void> {
  const keeper = await keeperOf(where, command)
  const kept = keeper.all()
  const conflicts = keeper.conflicts()
  const rows = kept.map(({ origin, size, root, at }): [string, number, string, string] => [
    origin,
    size,
    root.slice(0, 16),
    instant(Math.floor(at / 1000)),
  ])
  const head = ['log', 'events', 'root', 'shown']
  show(globalOptions(command), { kept, conflicts }, { head, rows, empty: 'no head is kept' })
  if (conflicts.length === 0) return
  if (!globalOptions(command).json)
    for (const file of conflicts) say(`CONFLICT  the evidence is in ${file}`)
  throw new Exited('failed')
}

async function check(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openPlainApi } = await import('../client.ts')
  const { look } = await import('../witness.ts')
  const keeper = await keeperOf({}, command)
  const verdict = await look(await openPlainApi(options), keeper)
  if (verdict === null)
    throw new CliError('the gateway did not show its log', {
      code: 'log.hidden',
      exit: 'usage',
      next: 'repeat this; if it stays so, look at the gateway',
    })
  const kept = keeper.all()
  const said = {
    first: 'seen for the first time',
    same: 'as it was',
    grew: 'goes on from before',
    followed:
      'was rotated: it ended as it was kept here, and goes on under a new name and new keys',
  }
  tell(options, { ...verdict, kept }, [
    verdict.kind === 'conflict' ? verdict.message : `the log ${said[verdict.kind]}`,
  ])
}

/** Notes one after another, each followed by a blank line, as in a log's checkpoints.log. */
async function exportHeads(
  flags: Where & { readonly out?: string },
  command: Command,
): Promise<void> {
  const kept = (await keeperOf(flags, command)).all()
  if (kept.length === 0) throw usage('no head is kept here', 'use the gateway first, then export')
  const text = kept.map(({ note }) => `${note}\n`).join('')
  if (flags.out === undefined) process.stdout.write(text)
  else writeOut(flags.out, text)
}

interface CompareFlags {
  readonly key: string[]
  readonly log?: string
}

async function compare(files: string[], flags: CompareFlags, command: Command): Promise<void> {
  const { openHeads, verifyLog } = await import('#audit')
  const verifierKeys = flags.key.flatMap(readKeys)
  const heads = files.flatMap((file) => {
    try {
      return openHeads(readText(file, 'heads'), verifierKeys).map((head) => ({ file, ...head }))
    } catch (cause) {
      throw usage(
        `${file} does not hold heads of this log`,
        cause instanceof Error ? cause.message : undefined,
        { cause },
      )
    }
  })
  const split = splitView(heads)
  const verdict =
    split === undefined && flags.log !== undefined
      ? await verifyLog({ directory: flags.log, verifierKeys, held: heads.map(({ note }) => note) })
      : undefined
  const { exit, says } = conclude(heads, split, verdict)
  const sizes = heads.map(({ file, size, root }) => ({ file, size, root }))
  tell(globalOptions(command), { outcome: says, heads: sizes, verdict }, [
    says,
    ...sizes.map(({ file, size, root }) => `${file}  ${size} events  ${root.slice(0, 16)}`),
  ])
  if (exit !== 'ok') throw new Exited(exit)
}

type Head = Pick<Kept, 'size' | 'root' | 'note'> & { readonly file: string }

/** Two signed heads of one size that differ: no log is needed to see that. */
function splitView(heads: readonly Head[]): readonly [Head, Head] | undefined {
  for (const one of heads) {
    const other = heads.find(({ size, root }) => size === one.size && root !== one.root)
    if (other !== undefined) return [one, other]
  }
  return undefined
}

function conclude(
  heads: readonly Head[],
  split: readonly [Head, Head] | undefined,
  verdict: Verdict | undefined,
): { readonly exit: Exit; readonly says: string } {
  if (split !== undefined)
    return {
      exit: 'failed',
      says: `SPLIT VIEW: ${split[0].file} and ${split[1].file} were shown different logs of ${split[0].size} events`,
    }
  if (verdict?.outcome === 'violated')
    return { exit: 'failed', says: `REWRITTEN: ${verdict.why ?? verdict.place?.what ?? ''}` }
  if (verdict?.outcome === 'proven')
    return { exit: 'ok', says: 'one history: the log passes through every head' }
  if (verdict !== undefined)
    return { exit: 'usage', says: `not provable: ${verdict.why ?? 'the log says too little'}` }
  if (new Set(heads.map(({ size }) => size)).size === 1)
    return { exit: 'ok', says: 'one history: all heads are the same' }
  return { exit: 'usage', says: 'not provable: heads of different sizes; give the log with --log' }
}

async function forget(flags: Where & { readonly origin: string }, command: Command): Promise<void> {
  const keeper = await keeperOf(flags, command)
  if (!keeper.forget(flags.origin)) throw usage(`no head of ${flags.origin} is kept here`)
  tell(globalOptions(command), { origin: flags.origin, forgotten: true }, [
    `the next head of ${flags.origin} is believed as it comes; the evidence stays`,
  ])
}

interface AcceptFlags extends Where {
  readonly origin: string
  readonly key?: string[]
}

async function accept(flags: AcceptFlags, command: Command): Promise<void> {
  const keeper = await keeperOf(flags, command)
  const keys = (flags.key ?? []).flatMap(readKeys)
  let news: boolean
  try {
    news = keeper.accept(flags.origin, keys)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw usage(`the log cannot be accepted: ${why}`, 'give the log-keys.txt of that log', {
      cause,
    })
  }
  const by = keys.length === 0 ? 'the keys it comes with are believed' : 'signed by these keys'
  tell(globalOptions(command), { origin: flags.origin, accepted: news }, [
    news
      ? `the next head of ${flags.origin} is taken as its first: ${by}`
      : `${flags.origin} is held already; there is nothing to accept`,
  ])
}
