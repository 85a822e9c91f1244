/**
 * The command `sallyport`: what it can do. Each command file declares its arguments and loads the rooms
 * it needs when it runs, so that `sallyport --help` costs nothing.
 */
import type { Command } from 'commander'
import { registerAccount } from './commands/account.ts'
import { registerAgent } from './commands/agent.ts'
import { registerAudit } from './commands/audit.ts'
import { registerBootstrap } from './commands/bootstrap.ts'
import { registerBreakGlass } from './commands/break-glass.ts'
import { registerCa } from './commands/ca.ts'
import { registerCaRevocation } from './commands/ca-revocation.ts'
import { registerConnect } from './commands/connect.ts'
import { registerDevice } from './commands/device.ts'
import { registerDoctor } from './commands/doctor.ts'
import { registerEst } from './commands/est.ts'
import { registerGateway } from './commands/gateway.ts'
import { registerGrant } from './commands/grant.ts'
import { registerGrantFile } from './commands/grant-file.ts'
import { registerIdp } from './commands/idp.ts'
import { registerLock } from './commands/lock.ts'
import { registerLogin } from './commands/login.ts'
import { registerOpen } from './commands/open.ts'
import { registerTotp } from './commands/totp.ts'
import { registerPasskey } from './commands/passkey.ts'
import { registerPolicy } from './commands/policy.ts'
import { registerPolicyNode } from './commands/policy-node.ts'
import { registerProcess } from './commands/process.ts'
import { registerRecording } from './commands/recording.ts'
import { registerRollout } from './commands/rollout.ts'
import { registerService } from './commands/service.ts'
import { registerSession } from './commands/session.ts'
import { registerSsh } from './commands/ssh.ts'
import { program, run } from './program.ts'

const rooms = [
  registerGateway,
  registerAgent,
  registerBootstrap,
  registerLogin,
  registerCa,
  registerAccount,
  registerIdp,
  registerService,
  registerPasskey,
  registerTotp,
  registerDevice,
  registerCaRevocation,
  registerProcess,
  registerGrant,
  registerGrantFile,
  registerBreakGlass,
  registerConnect,
  registerSsh,
  registerOpen,
  registerSession,
  registerLock,
  registerRecording,
  registerAudit,
  registerPolicy,
  registerPolicyNode,
  registerRollout,
  registerEst,
  registerDoctor,
] as const

/** Every command with its arguments and help; nothing of it has run. */
export function buildProgram(): Command {
  return program('sallyport', rooms)
}

/** Runs one command line (`argv` as process.argv); resolves as `run`. */
export async function main(argv: readonly string[]): Promise<number> {
  return await run(buildProgram(), argv)
}
