/** Step 3: a vendor signs in through the device flow, asks for a session without a grant, and is told why not. */
import { expect } from '../failure.ts'
import type { GatewayNode } from '../gateway-node.ts'
import { signIn } from '../people.ts'
import type { Found, Stage } from '../stage.ts'

export async function deniedWithoutGrant(stage: Stage, gateway: GatewayNode): Promise<Found> {
  await signIn(stage, stage.people.vendor, gateway.caSha256, gateway.read('ca-root.pem'))
  const told = await stage.sallyport.refused(
    'vendor',
    3,
    'connect',
    'press-07/plc',
    '--listen',
    '127.0.0.1:0',
  )
  expect(told.code === 'grant.none', 'the code grant.none', told)
  expect((told.why ?? '').length > 10, 'a sentence that says why', told)
  expect((told.next_step ?? '').length > 10, 'the next step', told)
  expect(/^d_[0-9a-z]{26}$/.test(told.id ?? ''), 'the id of the decision', told)
  return { found: [`${told.code}: ${told.why}`, `next: ${told.next_step} (${told.id})`] }
}
