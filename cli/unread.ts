/** A command whose output nobody reads any more, as behind `| head`: docs/cli.md "Exit codes". */

/** Has the process end with 1, and say nothing, when its stdout was closed: a pipeline must not take what is left for done. */
export function stopsUnread(): void {
  process.stdout.on('error', (error) => {
    if (!('code' in error) || error.code !== 'EPIPE') throw error
    process.exit(1)
  })
}
