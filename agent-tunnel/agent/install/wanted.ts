/** What the file of a device is to say: what the line says, on what is there already. Nothing is changed here. */
import { configFrom, printConfig, readConfig } from '../config.ts'
import type { AgentConfig, Setup } from '../config.ts'
import { AgentError } from '../errors.ts'
import { gatewaysOf } from '../gateways.ts'

/** What the device's file is to say, and whether that differs from what it says. */
export interface Wanted {
  readonly config: AgentConfig
  readonly corrected: boolean
}

/**
 * What the line says, on what the device's file says. Throws AgentError `config.invalid`; without a token, which alone
 * would prove who this is and whom it trusts, `config.other_device` where that is another than in the file.
 */
export function wantedOf(
  { setup, token }: { readonly setup: Setup; readonly token: string | undefined },
  dataDir: string,
): Wanted {
  const before = standingConfig(dataDir)
  const given = configFrom({ ...setup, tenant: setup.tenant ?? before?.tenant }, dataDir)
  if (before === undefined) {
    if (token === undefined) throw tokenMissing()
    return { config: given, corrected: true }
  }
  if (token === undefined) assertSame(before, given)
  const config = merged(setup, given, before)
  return { config, corrected: printConfig(config) !== printConfig(before) }
}

function standingConfig(dataDir: string): AgentConfig | undefined {
  try {
    return readConfig(dataDir)
  } catch (error) {
    if (error instanceof AgentError && error.code === 'config.missing') return undefined
    throw error
  }
}

/** Throws AgentError `config.other_device`. */
function assertSame(before: AgentConfig, given: AgentConfig): void {
  const told = (
    [
      ['device', 'device'],
      ['tenant', 'tenant'],
      ['rootSha256', 'SHA-256 of the root'],
    ] as const
  ).find(([key]) => before[key] !== given[key])
  if (told === undefined) return
  const [key, name] = told
  throw new AgentError(
    'config.other_device',
    `The ${name} of this device is ${before[key]}, not ${given[key]}, and there is no token that would prove another one.`,
    'Correct the line; or run the one that `sallyport device token` prints, which has a token.',
  )
}

/** Nothing here proves who this is. */
export function tokenMissing(): AgentError {
  return new AgentError(
    'token.missing',
    'There is no enrolment token.',
    'Run the line that `sallyport device add` or `sallyport device token` printed.',
  )
}

/** An owner's edits outlive a second run. */
function merged(setup: Setup, given: AgentConfig, before: AgentConfig): AgentConfig {
  const { gateway, device, tenant, rootSha256 } = given
  const targets = new Map(before.targets)
  for (const [name, target] of given.targets) {
    const consent = target.consent || before.targets.get(name)?.consent === true
    targets.set(name, { ...target, consent })
  }
  return {
    ...before,
    gateway,
    others: gatewaysOf({ gateway, others: [...before.others, ...given.others] }).slice(1),
    device,
    tenant,
    rootSha256,
    targets,
    pkcs11: given.pkcs11 ?? before.pkcs11,
    proxy: given.proxy ?? before.proxy,
    carrier: setup.way?.carrier === undefined ? before.carrier : given.carrier,
    keyExchange: setup.keyExchange === undefined ? before.keyExchange : given.keyExchange,
  }
}
