/** What every step stands on: a directory of its own, ports, people, programs. Nothing outside it is touched. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Ports } from './ports.ts'
import { Programs } from './programs.ts'
import { Sallyport } from './sallyport.ts'

export type Role = 'admin' | 'operator' | 'vendor'

export interface Person {
  /** Also the name of the sign-in (`--profile`). */
  readonly role: Role
  readonly name: string
  readonly email: string
  readonly password: string
  readonly passwordFile: string
}

export interface Stage {
  readonly directory: string
  readonly ports: Ports
  readonly programs: Programs
  readonly sallyport: Sallyport
  readonly people: Readonly<Record<Role, Person>>
  /** `https://localhost:<port>`. */
  readonly origin: string
  /** A new private directory below the stage's. */
  readonly folder: (name: string) => string
}

/** What a step found out, in words a person can use. */
export interface Found {
  readonly found: readonly string[]
}

export function setStage(directory: string, ports: Ports): Stage {
  const folder = (name: string): string => {
    const path = join(directory, name)
    mkdirSync(path, { recursive: true, mode: 0o700 })
    return path
  }
  const secrets = folder('people')
  const person = (role: Role, name: string, email: string): Person => {
    const password = randomBytes(12).toString('base64url')
    const passwordFile = join(secrets, `${role}.password`)
    writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 })
    return { role, name, email, password, passwordFile }
  }
  return {
    directory,
    ports,
    programs: new Programs(folder('errors')),
    sallyport: new Sallyport(folder('home')),
    people: {
      admin: person('admin', 'Ada Admin', 'ada@plant.example'),
      operator: person('operator', 'Otto Operator', 'otto@plant.example'),
      vendor: person('vendor', 'Vera Vendor', 'vera@pressmaker.example'),
    },
    origin: `https://localhost:${ports.gateway}`,
    folder,
  }
}
