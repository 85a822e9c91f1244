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
      const api = await openApi(options)
      const opened = await openSession(api, target, flags.grant, ['app']).catch(
        (error: unknown) => {
          throw notAnApp(error, place)
        },
      )
      if (opened.url === null) throw new Error(`the gateway gave no address for ${place}`)
      const { secret: _secret, ...shown } = opened
      const notice = noticeOf(opened.recording)
      tell(options, shown, [
        opened.url,
        `until ${instant(opened.expires_at)}`,
        ...(notice === undefined ? [] : [notice]),
      ])
    })
}

/** The gateway opens nothing for a process that no browser can use; what it says of it becomes the way on. */
function notAnApp(error: unknown, place: string): unknown {
  if (!(error instanceof CliError) || error.code !== 'process.kind') return error
  const { code, why } = error
  const next = `sallyport connect ${place} --listen 127.0.0.1:0`
  return new CliError(
    `${place} is not a web app`,
    { code, exit: 'failed', why, next },
    { cause: error },
  )
}
