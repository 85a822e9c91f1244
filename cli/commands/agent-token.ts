/** A token that opens the gateway for one device is its owner's alone; a file that is not so is used, and told of. */
import { note } from '../print.ts'

/** On stderr; nothing where the token is in no file, or in one of its owner's alone. */
export function warnOfToken(
  file: string | undefined,
  json: boolean,
  exposureOf: (file: string) => string | undefined,
): void {
  const warning = file === undefined ? undefined : exposureOf(file)
  if (warning === undefined) return
  note(json ? JSON.stringify({ code: 'token.exposed', warning }) : `warning: ${warning}`)
}
