/** `sallyport audit mirror`: a copy of a gateway's log that it cannot take back, kept somewhere else. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Followed, Mirror, MirrorSource } from '#audit'
import { CliError, type Exit } from '../exit.ts'
import { readDuration } from '../input.ts'
import { readKeys } from '../keys.ts'
import { facts, instant, note, tell, type PrintOptions } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface InitFlags {
  readonly dir: string
  readonly name: string
}
interface RunFlags {
  readonly dir: string
  readonly gateway: string
  readonly caSha256: string
  readonly key: string[]
  readonly every: string
  readonly once?: boolean
}

const KEYS = 'mirror-keys.txt'
/** Between looks at a gateway that does not answer, at most. */
const PATIENCE_MS = 30_000

export function registerMirror(audit: Command): void {
  const mirror = audit
    .command('mirror')
    .description('a copy of the log off the gateway, which cosigns what it durably holds')
  mirror
    .command('init')
    .description('make the keys of a mirror; the gateway is told the public ones')
    .requiredOption('--dir <dir>', 'where the mirror is to be')
    .requiredOption('--name <name>', 'what it signs under, as in mirror.soc.example/press-hall')
    .action(init)
  mirror
    .command('run')
    .description('follow the log until stopped; ends at once if the log was rewritten')
    .requiredOption('--dir <dir>', 'the mirror')
    .requiredOption('--gateway <url>', 'where the log is written')
    .requiredOption('--ca-sha256 <hex>', 'SHA-256 of the gateway’s root')
    .requiredOption('--key <file|vkey>', 'a verifier key of the log; may be repeated', collect)
    .option('--every <duration>', 'how often to look', '2s')
    .option('--once', 'catch up, cosign and end')
    .action(run)
  mirror
    .command('status')
    .description('how far the copy goes, and whether a conflict was found')
    .requiredOption('--dir <dir>', 'the mirror')
    .action(status)
}

async function init({ dir, name }: InitFlags, command: Command): Promise<void> {
  const { makeMirrorKeys } = await import('#audit')
  const { vkeys } = makeMirrorKeys(dir, name)
  const file = join(dir, KEYS)
  writeFileSync(file, vkeys.map((vkey) => `${vkey}\n`).join(''))
  tell(globalOptions(command), { name, keys_file: file, keys: vkeys }, [
    `${name} has its keys; the public ones are in ${file}.`,
    'Next: copy that file to the gateway and name it there:',
    '  witnesses:',
    `    - ${KEYS}`,
    `Then: sallyport audit mirror run --dir ${dir} --gateway URL --ca-sha256 HEX --key log-keys.txt`,
  ])
}

async function run(flags: RunFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const every = readDuration(flags.every) * 1000
  const stopping = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopping.abort())
  const { openMirror, readMirrorKeys } = await import('#audit')
  const { fetchAnchor, readGateway } = await import('../anchor.ts')
  const { openMirrorSource } = await import('../mirror.ts')
  const gateway = readGateway(flags.gateway)
  const keys = readMirrorKeys(flags.dir)
  const vkeys = flags.key.flatMap(readKeys)
  using mirror = await convicting(flags.dir, () => openMirror(flags.dir, vkeys, () => Date.now()))
  const { origin } = mirror
  const connect = async () =>
    openMirrorSource({ gateway, anchor: await fetchAnchor(gateway, flags.caSha256), origin, keys })
  let last: Followed | undefined
  if (flags.once === true) {
    await using source = await connect()
    last = await convicting(flags.dir, () => mirror.follow(source))
    report(options, last)
  } else
    last = await keep({ mirror, connect, every, signal: stopping.signal, options, dir: flags.dir })
  if (last !== undefined && isOver(last)) throw over(last, flags.dir)
}

/** The log has ended, and the gateway knows that all of it is here. */
function isOver({ ended, submitted }: Followed): boolean {
  return ended !== undefined && submitted
}

/** Nobody follows the epoch that goes on, until somebody has done something about it. */
function over({ checkpoint, ended }: Followed, dir: string): CliError {
  return new CliError(`the log that this mirror follows has ended: ${checkpoint.origin}`, {
    code: 'mirror.ended',
    exit: 'failed',
    why: `it was rotated, and goes on as ${ended?.successor}; all ${checkpoint.size} events of it are held and cosigned in ${dir}`,
    next: 'keep this directory, and begin a mirror of the new epoch in another, with the new log-keys.txt: docs/audit.md, Epochs',
  })
}

interface Keeping {
  readonly mirror: Mirror
  readonly connect: () => Promise<MirrorSource & AsyncDisposable>
  readonly every: number
  readonly signal: AbortSignal
  readonly options: PrintOptions
  readonly dir: string
}

/**
 * Looks again and again, until it is told to stop or the log has ended. What may pass is said and tried again, ever more
 * slowly; what may not is thrown. Gives what the last look brought, where the log has ended.
 */
export async function keep({
  mirror,
  connect,
  every,
  signal,
  options,
  dir,
}: Keeping): Promise<Followed | undefined> {
  let source: (MirrorSource & AsyncDisposable) | undefined
  let wait = every
  let told = ''
  try {
    while (!signal.aborted) {
      try {
        source ??= await connect()
        const from = source
        const followed = await convicting(dir, () => mirror.follow(from))
        wait = every
        if (followed.events > 0 || (followed.why ?? '') !== told) report(options, followed)
        told = followed.why ?? ''
        if (isOver(followed)) return followed
      } catch (error) {
        if (!mayPass(error)) throw error
        wait = Math.min(PATIENCE_MS, wait * 2)
        if (error.code !== told) note(`mirror: ${error.message} (${error.code}); tries again`)
        told = error.code
      }
      await setTimeout(wait, undefined, { signal }).catch(() => undefined)
    }
  } finally {
    await source?.[Symbol.asyncDispose]()
  }
  return undefined
}

/**
 * What two signed heads prove, and a log of another name in the place of the one held. Nothing else ends a mirror:
 * whoever rewrites a log could answer 500 first.
 */
const FINAL: ReadonlySet<string> = new Set([
  'mirror.fork',
  'mirror.rollback',
  'mirror.other',
  'mirror.conflict',
])

/** A gateway that is away, fails, or does not know this mirror yet may come to its senses; a rewritten log may not. */
function mayPass(error: unknown): error is CliError {
  if (!(error instanceof CliError)) return false
  // A gateway may send a problem with such a code too; only what was found here has a cause.
  return !(FINAL.has(error.code) && error.cause instanceof Error)
}

const outcomes: Readonly<Record<string, { readonly exit: Exit; readonly next: string }>> = {
  'mirror.fork': {
    exit: 'failed',
    next: 'keep the folder conflict/: both heads in it are signed by the log; then look at the gateway',
  },
  'mirror.rollback': {
    exit: 'failed',
    next: 'keep the folder conflict/; was the gateway restored from a backup? Its missing events are in this mirror',
  },
  'mirror.other': {
    exit: 'failed',
    next: 'find out why the gateway’s log has another name; if it is meant to, keep this mirror as it is, and begin one of the new log in another directory, with its keys',
  },
  'mirror.conflict': {
    exit: 'failed',
    next: 'look at what lies there; once it is settled, move that folder elsewhere and run this again',
  },
  'mirror.unproven': {
    exit: 'usage',
    next: 'the log is asked again; if it stays so, verify the log on the gateway',
  },
  'mirror.source': { exit: 'usage', next: 'the log is asked again; look at the gateway' },
  'note.invalid': { exit: 'usage', next: 'check that --key holds the keys of this gateway’s log' },
  'note.signature': {
    exit: 'usage',
    next: 'check that --key holds the keys of this gateway’s log',
  },
}

/** Turns what the room found into what a person reads and a service manager acts on. */
async function convicting<T>(dir: string, act: () => Promise<T>): Promise<T> {
  const { AuditError } = await import('#audit')
  try {
    return await act()
  } catch (error) {
    const row = error instanceof AuditError ? outcomes[error.code] : undefined
    if (!(error instanceof AuditError) || row === undefined) throw error
    const message = row.exit === 'failed' ? `ALARM: ${error.message}` : error.message
    const facts = { code: error.code, exit: row.exit, next: row.next, why: `the mirror is ${dir}` }
    throw new CliError(message, facts, { cause: error })
  }
}

function report(options: PrintOptions, { events, checkpoint, submitted, why }: Followed): void {
  const { size, root } = checkpoint
  const value = { events, size, root, submitted, ...(why === undefined ? {} : { why }) }
  tell(options, value, [
    `${events} events more; ${size} held and cosigned${submitted ? '' : `; the gateway did not take the cosignature: ${why}`}`,
  ])
}

async function status({ dir }: { readonly dir: string }, command: Command): Promise<void> {
  const { mirrorStatus } = await import('#audit')
  const found = mirrorStatus(dir)
  const { conflicts } = found
  tell(globalOptions(command), found, [
    ...facts([
      ['mirror', found.name],
      ['log', found.origin],
      ['events held and cosigned', found.size],
      ['cosigned', instant(found.at)],
      ['conflicts', conflicts.length === 0 ? 'none' : conflicts.join(', ')],
    ]),
  ])
  if (conflicts.length > 0)
    throw new CliError('ALARM: the log followed was not the one held', {
      code: 'mirror.conflict',
      exit: 'failed',
      next: outcomes['mirror.conflict']?.next,
    })
}
