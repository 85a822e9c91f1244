/** What a person can do with the demo while it stays up. */
import type { GatewayNode } from './gateway-node.ts'
import type { Stage } from './stage.ts'
import { logDirectory } from './steps/08-prove.ts'

/** Addresses, sign-ins and commands to try, as one text. */
export async function invite(stage: Stage, gateway: GatewayNode): Promise<string> {
  const { admin, operator, vendor } = stage.people
  const sallyport = `SALLYPORT_HOME=${stage.directory}/home node cli/bin.mjs`
  const person = ({ role, email, password }: typeof admin): string =>
    `  ${role.padEnd(9)} ${email.padEnd(26)} ${password}`
  return `
The gateway stays up. In another terminal, in this directory:

  gateway   ${stage.origin}
  HMI       https://hmi--press-08.apps.localhost:${stage.ports.gateway}/   (\`open\`, below, gives the way in)
  health    http://127.0.0.1:${stage.ports.operations}/healthz
  log       ${logDirectory(gateway)}
  root      ${gateway.file('ca-root.pem')}   (a browser must trust it)
            SHA-256 ${gateway.caSha256}

Sign-ins (each is signed in already under the profile of that name):
${[admin, operator, vendor].map(person).join('\n')}

To try:
  ${sallyport} --profile vendor request press-07/plc --for 5m --reason "looking around"
  ${sallyport} --profile operator approve GRANT
  ${sallyport} --profile vendor connect press-07/plc --listen 127.0.0.1:${stage.ports.vendor}
  node cli/guard.mjs test/demo/vendor-reads.ts ${stage.ports.vendor} 0 500
  ${sallyport} --profile operator revoke GRANT --reason "enough"
  ${sallyport} --profile vendor request press-08/hmi --for 5m --reason "the panel"     then approve, and
  ${sallyport} --profile vendor open press-08/hmi
  ${sallyport} --profile admin audit tail
  node cli/bin.mjs audit verify --log ${logDirectory(gateway)} --key ${gateway.file('log-keys.txt')}

Ctrl-C ends everything and removes ${stage.directory}.`
}
