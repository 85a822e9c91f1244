/** Which settings name a file or a folder: what is relative begins where the configuration lies. */
import { resolve } from 'node:path'

const under = (place: string, keys: readonly string[]) => keys.map((key) => `${place}/${key}`)

/** Every one of them, as the way to it; `*` is each of a list. */
export const PATHS: readonly string[] = [
  'data',
  'agent_files',
  'witnesses/*',
  'archive/directory',
  ...under('store/redis', ['password_file', 'ca_file', 'cert_file', 'key_file']),
  'ca/passphrase_file',
  ...under('ca/pkcs11', ['module', 'pin_file', 'binding']),
  'policy/trust/*',
  ...under('policy/source', ['ca_file', 'token_file', 'file']),
  ...under('syslog/*', ['ca_file', 'cert_file', 'key_file']),
  ...under('sinks/*', ['ca_file', 'secret_file', 'cert_file', 'key_file']),
  ...under('notices/webhooks/*', ['ca_file', 'secret_file']),
  ...under('notices/mail', ['ca_file', 'password_file']),
  ...under('tickets/webhook', ['ca_file', 'secret_file']),
  ...under('est/manufacturers/*', ['roots_file', 'serials_file']),
]

/** A configuration that the schema has passed, each of its paths absolute. */
export function settled(
  config: Readonly<Record<string, unknown>>,
  directory: string,
): Record<string, unknown> {
  const absolute = (path: string) => resolve(directory, path)
  return PATHS.reduce<Record<string, unknown>>(
    (rest, path) => ({ ...rest, ...(settle(rest, path.split('/'), absolute) as object) }),
    { ...config },
  )
}

function settle(
  value: unknown,
  [part, ...rest]: readonly string[],
  absolute: (path: string) => string,
): unknown {
  if (part === undefined) return typeof value === 'string' ? absolute(value) : value
  if (part === '*')
    return Array.isArray(value) ? value.map((each) => settle(each, rest, absolute)) : value
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return value
  const held = value as Readonly<Record<string, unknown>>
  return { ...held, [part]: settle(held[part], rest, absolute) }
}
