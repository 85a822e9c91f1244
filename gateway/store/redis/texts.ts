/** Every script by its name: what it does behind the prelude of its room. No two rooms share a name. */
import { answerPrelude, answerScripts } from './answering.ts'
import { auditorPrelude, auditorScripts } from './auditing.ts'
import { companyScripts } from './companying.ts'
import { caPrelude, caScripts } from './scripts.ts'
import { deviceScripts } from './devicing.ts'
import { factorScripts } from './factoring.ts'
import { gatewayScripts } from './gateways.ts'
import { grantPrelude, grantScripts } from './granting.ts'
import { invitationScripts } from './inviting.ts'
import { reviewScripts } from './reviewing.ts'
import { lockScripts } from './locking.ts'
import { loginScripts } from './logining.ts'
import { pagePrelude } from './paging.ts'
import { policyScripts } from './policies.ts'
import { peoplePrelude, peopleScripts } from './peopling.ts'
import { serviceScripts } from './serving.ts'
import { sessionPrelude, sessionScripts } from './sessioning.ts'
import { sharingScripts } from './sharing.ts'

function behind<T extends Readonly<Record<string, string>>>(prelude: string, bodies: T) {
  const whole = Object.entries(bodies).map(([name, body]) => [name, prelude + body])
  return Object.fromEntries(whole) as { readonly [K in keyof T]: string }
}

const texts = {
  ...behind(answerPrelude, answerScripts),
  ...behind(auditorPrelude, auditorScripts),
  ...behind(caPrelude, caScripts),
  ...behind(pagePrelude + grantPrelude, grantScripts),
  ...behind(grantPrelude, reviewScripts),
  ...behind(grantPrelude, gatewayScripts),
  ...behind(grantPrelude, policyScripts),
  ...behind(grantPrelude, deviceScripts),
  ...behind(grantPrelude, serviceScripts),
  ...behind(peoplePrelude, companyScripts),
  ...behind(pagePrelude + peoplePrelude, invitationScripts),
  ...behind(pagePrelude + sessionPrelude, sessionScripts),
  ...behind(pagePrelude + grantPrelude, lockScripts),
  ...behind(peoplePrelude, {
    ...peopleScripts,
    ...factorScripts,
    ...loginScripts,
    ...sharingScripts,
  }),
} as const

export type ScriptName = keyof typeof texts

/** The whole text of a script. */
export function scriptText(name: ScriptName): string {
  return texts[name]
}
