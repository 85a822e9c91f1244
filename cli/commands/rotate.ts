/**
 * `sallyport audit rotate`: new keys for the log of the gateway signed in to, which goes on meanwhile, or of one that is stopped; and
 * what that means to whoever has the old ones.
 */
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import type { RotationStatus } from '#api'
import type { LogRotated } from '#gateway'
import { CliError, usage } from '../exit.ts'
import { facts, plain, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface RotateFlags {
  readonly data?: string
  readonly config?: string
  readonly status?: true
}

export function registerRotate(audit: Command): void {
  audit
    .command('rotate')
    .description('end the log’s epoch and begin the next, under new keys')
    .option('--status', 'only say how the last rotation of the running gateway went')
    .option(
      '--data <dir>',
      'data directory of a gateway that is stopped, instead of the one signed in to',
    )
    .option('--config <file>', 'YAML configuration of a gateway that is stopped')
    .action(rotate)
}

async function rotate(_flags: RotateFlags, command: Command): Promise<void> {
  const { data, config, status }: RotateFlags = command.optsWithGlobals()
  if (data === undefined && config === undefined)
    return await rotateRunning(status === true, command)
  if (status === true)
    throw usage('--status is of a running gateway', 'leave --data and --config away')
  await rotateStopped(data, config, command)
}

/** How often a gateway is asked how far it is. */
const POLL_MS = 500

/** The gateway does it, and serves on. */
async function rotateRunning(only: boolean, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, RotationStatus: schema } = await import('../client.ts')
  const api = await openApi(options)
  if (!only) await api.call(schema, 'POST', '/audit/rotate', {})
  let status = await api.call(schema, 'GET', '/audit/rotate')
  while (status.state === 'running' && !only) {
    await setTimeout(POLL_MS)
    status = await api.call(schema, 'GET', '/audit/rotate')
  }
  if (status.state === 'failed' && !only) throw failed(status)
  tell(options, status, runningLines(status))
}

function failed({ ended, origin, why }: RotationStatus): CliError {
  const code = why?.code ?? 'rotate.failed'
  if (ended === null)
    return new CliError('the running gateway did not rotate its log', {
      code,
      exit: 'failed',
      why: why?.detail ?? '',
      next: NEXT[code] ?? 'see the log of the gateway itself, then do it again',
    })
  return new CliError('the running gateway rotated its log, and what comes behind that failed', {
    code,
    exit: 'failed',
    why: `${why?.detail ?? ''}; the log is ${plain(origin ?? '')} now, and the ended epoch\u2019s last head is\n\n${ended.note}`,
    next: 'keep that head, mend the data directory and restart the gateway, which does the rest; do not rotate again, that would be a second rotation',
  })
}

function runningLines({ state, ended, origin, why }: RotationStatus): string[] {
  const said = why === null ? [] : [plain(why.detail)]
  if (ended === null) return [`the running gateway has rotated nothing: ${state}`, ...said]
  return [
    `the running gateway rotated its log: ${plain(ended.origin)} has ended with ${ended.events} events; ${plain(origin ?? '')} goes on from it, under new keys`,
    ...said,
    ...facts([['last root', ended.root]]),
    ...KEEP,
    '',
    ...ended.note.trimEnd().split('\n').map(plain),
  ]
}

/** What is to be done now, whichever way it was rotated. */
const KEEP = [
  'next: give log-keys.txt of its data directory, the new verifier keys, to auditors and mirrors (docs/audit.md, Epochs)',
  'keep the last head of the ended epoch where nobody of the gateway reaches it: verify takes it as --held',
]

async function rotateStopped(
  data: string | undefined,
  config: string | undefined,
  command: Command,
): Promise<void> {
  const { rotateLog } = await import('#gateway')
  let done: LogRotated
  let head: string | undefined
  try {
    const told = (note: string): void => void (head = note)
    done = await rotateLog({ dataDirectory: data, configFile: config }, { told })
  } catch (error) {
    if (head !== undefined) throw unfinished(head, error)
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    const own = error instanceof Error && 'next' in error ? error.next : undefined
    const next = typeof own === 'string' ? own : NEXT[code]
    if (!(error instanceof Error) || next === undefined) throw error
    throw new CliError('the log was not rotated', {
      code,
      exit: 'failed',
      why: error.message,
      next,
    })
  }
  tell(globalOptions(command), done, lines(done))
}

/** The epoch has ended, and what comes behind that failed: its last head is said all the same. */
function unfinished(head: string, error: unknown): CliError {
  return new CliError('the log was rotated, and what comes behind that failed', {
    code: error instanceof Error && 'code' in error ? String(error.code) : 'data.unusable',
    exit: 'failed',
    why: `${error instanceof Error ? error.message : String(error)}; the ended epoch\u2019s last head is\n\n${head}`,
    next: 'keep that head, mend the data directory and start the gateway, which writes the log-keys files; do not rotate again, that would be a second rotation',
  })
}

const NEXT: Readonly<Record<string, string>> = {
  'data.in_use':
    'the gateway runs: sign in to it and leave --data and --config away, it rotates its own log and serves on; or stop it first',
  'rotate.busy': 'wait until that is done: sallyport audit rotate --status',
  'rotate.state': '/healthz says why: make room on its disk, or mend that, then do it again',
  'rotate.sessions': 'wait until some have ended, or stop the gateway and rotate with --data',
  'rotate.keys': 'see that keys/ of its data directory can be written, then do it again',
  'rotate.failed': 'the log goes on under the keys it had; mend the cause, then do it again',
  'log.range':
    'name the data directory of the node with --data, or its configuration with --config',
  'log.locked': 'stop whatever writes this log, then do it again',
  'log.corrupt': 'sallyport audit verify names the place; a damaged log is not ended',
  'log.rollback':
    'find out who put it back or took it away; put the newest folder and its keys back',
  'log.full': 'make room on its disk; the log goes on as it was until then',
  'log.write': 'mend its disk, then do it again: the command finds what was done',
  'note.invalid': 'sallyport audit verify names the place; a damaged log is not ended',
  'key.invalid': 'the keys of a log lie in keys/ of the data directory, and in its backup',
  'key.exposed':
    'make it readable by its owner alone, then do it again: that is how a key somebody may have read is replaced',
  'key.unreadable': 'put the file back from the backup of keys/',
  'data.unusable': 'see that its disk is mounted to be written and has room, then do it again',
}

function lines({ ended, origin, keys_file, directory, resumed }: LogRotated): string[] {
  return [
    resumed
      ? `a rotation that was cut short is complete now: ${plain(ended.origin)} has ended, ${plain(origin)} goes on from it`
      : `${plain(ended.origin)} has ended with ${ended.events} events; ${plain(origin)} goes on from it, under new keys`,
    ...facts([
      ['log', directory],
      ['verifier keys', keys_file],
      ['last root', ended.root],
    ]),
    'the private keys of the ended epoch are gone from this node; its folder and its log-keys file stay',
    'next: start the gateway, and give the new verifier keys to auditors and mirrors (docs/audit.md, Epochs)',
    'keep the last head of the ended epoch where nobody of the gateway reaches it: verify takes it as --held',
    '',
    ...ended.note.trimEnd().split('\n').map(plain),
  ]
}
