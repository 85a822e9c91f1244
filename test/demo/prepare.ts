/** Before the first step: executables, the SIEM's receiver, the gateway, and the plant's own people. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeReceiverFiles } from './certificates.ts'
import { GatewayNode } from './gateway-node.ts'
import { signIn } from './people.ts'
import { readLine } from './programs.ts'
import { root } from './sallyport.ts'
import type { Stage } from './stage.ts'
import { makeExecutables, type Executables } from './targets.ts'

export interface Prepared {
  readonly gateway: GatewayNode
  readonly executables: Executables
  /** The file that the receiver writes. */
  readonly received: string
}

export async function prepare(stage: Stage): Promise<Prepared> {
  const siem = stage.folder('siem')
  const files = await makeReceiverFiles(siem)
  const received = join(siem, 'received.jsonl')
  writeFileSync(received, '')
  writeFileSync(join(siem, 'files.json'), JSON.stringify(files))
  const receiver = stage.programs.start({
    name: 'receiver',
    command: process.execPath,
    args: [
      join(root, 'test/demo/receiver.ts'),
      String(stage.ports.siem),
      join(siem, 'files.json'),
      received,
    ],
    cwd: stage.directory,
  })
  await receiver.line('listening', 20_000, (line) =>
    readLine(line)?.['msg'] === 'listening' ? true : undefined,
  )
  const gateway = new GatewayNode(stage, files)
  const [, executables] = await Promise.all([gateway.start(), makeExecutables(stage)])
  await addPeople(stage, gateway)
  return { gateway, executables, received }
}

/** The administrator by bootstrap token; operator and vendor by the administrator. */
async function addPeople(stage: Stage, gateway: GatewayNode): Promise<void> {
  const { admin, operator, vendor } = stage.people
  const pin = ['--gateway', stage.origin, '--ca-sha256', gateway.caSha256]
  const anchor = gateway.read('ca-root.pem')
  const named = ({ email, name, passwordFile }: typeof admin): string[] => {
    const who = ['--email', email, '--name', name]
    return [...who, '--password-file', passwordFile]
  }
  await stage.sallyport.ask(
    'admin',
    'bootstrap',
    ...pin,
    '--token-file',
    gateway.file('bootstrap-token'),
    ...named(admin),
  )
  await signIn(stage, admin, gateway.caSha256, anchor)
  await stage.sallyport.ask('admin', 'account', 'add', ...named(operator), '--role', 'operator')
  const party = ['--party', 'vendor', '--vendor', 'Pressmaker', '--role', 'vendor']
  await stage.sallyport.ask('admin', 'account', 'add', ...named(vendor), ...party)
  await signIn(stage, operator, gateway.caSha256, anchor)
}
