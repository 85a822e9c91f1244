/** Where a profile keeps its sign-in. The only reader of the environment in the CLI. */
import { join } from 'node:path'
import { usage } from './exit.ts'
import { credentialsDirectory } from './login/index.ts'

/** The file of the service in whose name commands run; undefined: a person's sign-in. */
export function serviceFile(): string | undefined {
  const file = process.env['SALLYPORT_SERVICE']
  return file === '' ? undefined : file
}

/** `default` is the plain place; every other profile has a folder inside it. Throws usage for a name that is none. */
export function profileDirectory(profile: string): string {
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(profile))
    throw usage(
      `${JSON.stringify(profile)} is not a profile name`,
      'use a-z, 0-9, dot, hyphen and underscore',
    )
  const directory = credentialsDirectory(process.env)
  return profile === 'default' ? directory : join(directory, 'profiles', profile)
}

/** Where the heads of `gateway`'s log are kept: a profile is of one gateway, and each service of its own. */
export function witnessDirectory(profile: string, gateway: URL): string {
  const directory = profileDirectory(profile)
  if (serviceFile() === undefined) return directory
  return join(directory, 'services', encodeURIComponent(gateway.host))
}
