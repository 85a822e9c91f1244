/** What every command is given beside its own options. */
import type { Command } from 'commander'

export interface GlobalOptions {
  readonly json: boolean
  /** The name of the sign-in to use. */
  readonly profile: string
}

/** The options of the program itself, wherever on the line they stood. */
export function globalOptions(command: Command): GlobalOptions {
  const options: { json?: boolean; profile?: string } = command.optsWithGlobals()
  return { json: options.json === true, profile: options.profile ?? 'default' }
}

/** For options that may be given several times. */
export function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}
