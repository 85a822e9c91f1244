/** `sallyport audit prune`: letting go of the oldest events of a log, once an archive is shown to hold them. */
import { randomBytes, type KeyObject } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Pruned, PruneOptions } from '#audit'
import { CliError, usage } from '../exit.ts'
import { facts, plain, tell } from '../print.ts'
import { readTime, signingKey } from './evidence.ts'
import { collect, globalOptions } from './options.ts'

interface PruneFlags {
  readonly log?: string
  readonly archive?: string
  readonly before?: string
  readonly sign?: string[]
  readonly status?: true
  readonly dryRun?: true
}

/** Of a log that nobody writes to. */
interface Stopped extends PruneFlags {
  readonly log: string
  readonly archive: string
  readonly before: string
  readonly sign: string[]
}

export function registerPrune(audit: Command): void {
  audit
    .command('prune')
    .description('let go of the oldest events of a gateway’s log; hashes and proofs stay')
    .option('--before <time>', 'events of before this day or instant may go')
    .option('--dry-run', 'only say what would go')
    .option('--status', 'only say how the last prune of the running gateway went')
    .option(
      '--log <dir>',
      'the log of a gateway that is not running, instead of the one signed in to',
    )
    .option('--archive <dir>', 'with --log: a mirror or a copy that is shown to hold what goes')
    .option('--sign <file>', 'with --log: a private key of the log (PEM); give each', collect)
    .action(prune)
}

async function prune(flags: PruneFlags, command: Command): Promise<void> {
  const { log, archive, sign, before, status } = flags
  if (before === undefined && status !== true)
    throw usage('--before is missing', 'say from when on everything stays: --before 2025-03-01')
  if (log === undefined && archive === undefined && sign === undefined)
    return await pruneRunning(flags, command)
  if (log === undefined || archive === undefined || sign === undefined || before === undefined)
    throw usage(
      '--log, --archive, --sign and --before go together',
      'they are for a gateway that is stopped; a running one takes --before alone',
    )
  await pruneStopped({ ...flags, log, archive, sign, before }, command)
}

/** How often a gateway is asked how far it is. */
const POLL_MS = 1_000

/** The gateway does it, into the archive that its configuration names; proving that takes as long as reading it. */
async function pruneRunning(flags: PruneFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, PruneStatus } = await import('../client.ts')
  const api = await openApi(options)
  const dry = flags.dryRun === true
  if (flags.before !== undefined && flags.status !== true) {
    const before = Math.floor(readTime(flags.before, 'before', false) / 1000)
    await api.call(PruneStatus, 'POST', '/audit/prune', { before, dry })
  }
  let status = await api.call(PruneStatus, 'GET', '/audit/prune')
  while (status.state === 'running' && flags.status !== true) {
    await setTimeout(POLL_MS)
    status = await api.call(PruneStatus, 'GET', '/audit/prune')
  }
  const { state, pruned, why } = status
  if (state === 'failed' && flags.status !== true)
    throw new CliError('the log was not pruned', {
      code: why?.code ?? 'prune.failed',
      exit: 'failed',
      why: why?.detail ?? '',
      next: NEXT[why?.code ?? ''] ?? 'see the log of the gateway itself, then do it again',
    })
  const said = pruned === null ? [`no prune is done: ${state}`] : lines(pruned, status.dry)
  tell(options, status, [...said, ...(why === null ? [] : [plain(why.detail)])])
}

async function pruneStopped(flags: Stopped, command: Command): Promise<void> {
  const options = globalOptions(command)
  for (const directory of [flags.log, flags.archive])
    if (!existsSync(join(directory, 'checkpoint')))
      throw usage(`there is no log in ${directory}`, 'it holds seg/, tile/ and checkpoint')
  const { pruneLog } = await import('#audit')
  const pruned = await explained(pruneLog, {
    directory: flags.log,
    archive: flags.archive,
    before: readTime(flags.before, 'before', false),
    signers: signersOf(flags.sign.map(signingKey)),
    clock: { now: () => Date.now() },
    random: (bytes) => randomBytes(bytes),
    dry: flags.dryRun === true,
  })
  tell(options, pruned, lines(pruned, flags.dryRun === true))
}

function signersOf(keys: readonly KeyObject[]): PruneOptions['signers'] {
  const of = (type: string) => keys.find((key) => key.asymmetricKeyType === type)
  const [ed25519, mlDsa44] = [of('ed25519'), of('ml-dsa-44')]
  if (ed25519 === undefined || mlDsa44 === undefined || keys.length !== 2)
    throw usage(
      'the two private keys of the log are needed',
      '--sign data/keys/log-ed25519.key.pem --sign data/keys/log-ml-dsa-44.key.pem',
    )
  return { ed25519, mlDsa44 }
}

async function explained(
  pruneLog: (options: PruneOptions) => Promise<Pruned>,
  asked: PruneOptions,
): Promise<Pruned> {
  try {
    return await pruneLog(asked)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    const next = NEXT[code]
    if (!(error instanceof Error) || next === undefined) throw error
    throw new CliError('nothing was let go of', { code, exit: 'failed', why: error.message, next })
  }
}

const NEXT: Readonly<Record<string, string>> = {
  'prune.archive': 'let a mirror follow the log to its end, then give its directory: docs/audit.md',
  'prune.failed': 'it was recorded; once the cause is mended, the same command does the rest',
  'log.locked': 'stop the gateway first, and start it again afterwards',
  'log.corrupt': 'sallyport audit verify names the place; a damaged log is not pruned',
  'log.rollback': 'sallyport audit verify names the place; a damaged log is not pruned',
  'note.invalid': 'sallyport audit verify names the place; a damaged log is not pruned',
  'log.ended': 'an epoch that ended is kept or archived as a whole folder: docs/audit.md, Epochs',
  'log.origin': 'these keys are of another log',
  'note.signature': 'these keys are not those that signed the log',
}

function lines(pruned: Pruned, dry: boolean): string[] {
  const { first, from, segments, bytes, heads, held, origin } = pruned
  const what =
    segments === 0
      ? `nothing is let go of: ${plain(held)}`
      : `${dry ? 'would let go of' : 'let go of'} the events ${from} to ${first - 1}`
  return [
    what,
    ...facts([
      ['log', origin],
      ['segments', segments],
      ['bytes', bytes],
      ...(dry || segments === 0 ? [] : [['heads', heads] as const]),
      ...(segments === 0 ? [] : [['no more', plain(held)] as const]),
    ]),
  ]
}
