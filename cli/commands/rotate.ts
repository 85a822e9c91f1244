/** `sallyport audit rotate`: new keys for the log of a gateway that is stopped, and what that means to whoever has the old ones. */
import type { Command } from 'commander'
import type { LogRotated } from '#gateway'
import { CliError } from '../exit.ts'
import { facts, plain, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface RotateFlags {
  readonly data?: string
  readonly config?: string
}

export function registerRotate(audit: Command): void {
  audit
    .command('rotate')
    .description('end the log’s epoch and begin the next, under new keys; the gateway is stopped')
    .option('--data <dir>', 'data directory')
    .option('--config <file>', 'YAML configuration')
    .action(rotate)
}

async function rotate(_flags: RotateFlags, command: Command): Promise<void> {
  const { data, config }: RotateFlags = command.optsWithGlobals()
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
  'data.in_use': 'stop the gateway, rotate, and start it again',
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
