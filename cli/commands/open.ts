/** `sallyport open`: a web app behind a device; prints the address that opens it in a browser. */
import type { Command } from 'commander'
import { CliError } from '../exit.ts'
import { readProcess } from '../input.ts'
import { instant, tell } from '../print.ts'
import { noticeOf } from '../recorded.ts'
import { globalOptions } from './options.ts'

export function registerOpen(program: Command): void {
  program
    .command('open <device/process>')
    .description('open a session to a web app and print its address, good once and for a minute')
    .option('--grant <id>', 'the grant to use, where several apply')
    .action(async (place: string, flags: { grant?: string }, command: Command) => {
      const options = globalOptions(command)
      const target = readProcess(place)
      const { openApi, openSession } = await import('../client.ts')
      const opened = await openSession(await openApi(options), target, flags.grant)
      if (opened.url === null)
        throw new CliError(`${place} is not a web app`, {
          code: 'process.kind',
          exit: 'failed',
          why: `its kind is ${opened.kind}`,
          next: `sallyport connect ${place} --listen 127.0.0.1:0`,
        })
      const { secret: _secret, ...shown } = opened
      const notice = noticeOf(opened.recording)
      tell(options, shown, [
        opened.url,
        `until ${instant(opened.expires_at)}`,
        ...(notice === undefined ? [] : [notice]),
      ])
    })
}
