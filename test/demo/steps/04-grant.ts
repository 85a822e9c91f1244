/** Step 4: the vendor asks for one process and two minutes; their own approval is refused, an operator's counts. */
import type { Grant } from '#api'
import { expect } from '../failure.ts'
import type { Found, Stage } from '../stage.ts'

export interface Granted extends Found {
  readonly grant: string
}

export async function askAndApprove(stage: Stage): Promise<Granted> {
  const grant = await request(stage, 'press-07/plc')
  expect(
    grant.state === 'requested' && grant.duration_s === 120,
    'a requested grant of 120 s',
    grant,
  )
  const told = await stage.sallyport.refused('vendor', 3, 'approve', grant.id)
  const approved = await approve(stage, grant)
  return {
    grant: grant.id,
    found: [
      `the vendor's own approval: ${told.code}: ${told.why}`,
      `${approved.id} approved by ${approved.approvals[0]?.email ?? approved.approvals[0]?.by}`,
    ],
  }
}

/** What the vendor asks for: one process, two minutes from the first use. */
export async function request(stage: Stage, place: string): Promise<Grant> {
  const reason = 'pressure drifts, reading registers'
  const args = ['request', place, '--for', '2m', '--reason', reason, '--ticket', 'WO-4711']
  return (await stage.sallyport.ask('vendor', ...args)) as Grant
}

export async function approve(stage: Stage, grant: Grant): Promise<Grant> {
  const approved = (await stage.sallyport.ask('operator', 'approve', grant.id)) as Grant
  expect(
    approved.state === 'approved' && approved.hash === grant.hash,
    'the same grant, approved',
    approved,
  )
  return approved
}
