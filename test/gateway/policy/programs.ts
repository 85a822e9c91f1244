/** A gateway's deciding core as a program of its own: boots from slots, then decides once. boot.test.ts. */
import { readFileSync } from 'node:fs'
import { BUILTIN_BUNDLE, PolicyEngine } from '#policy'
import { bootPolicy } from '../../../gateway/policy/boot.ts'
import { examineApart } from '../../../gateway/policy/examiner.ts'
import { PolicySlots } from '../../../gateway/policy/slots.ts'
import { Watchdog } from '../../../gateway/policy/watchdog.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'

const [directory = '', keyId = '', pem = ''] = process.argv.slice(2)
await using watchdog = new Watchdog({ directory })
const engine = PolicyEngine.unavailable({ guard: watchdog.guard })
const boot = await bootPolicy({
  slots: PolicySlots.open(directory),
  keys: new Map([[keyId, pem]]),
  builtin: readFileSync(BUILTIN_BUNDLE),
  marks: [],
  examine: examineApart,
})
if (boot.candidate !== null) engine.adopt(boot.candidate)
watchdog.watch(engine.status().bundle_digest)
// The message is on its way to the thread; a real gateway listens before it decides, too.
await new Promise((resolve) => setImmediate(resolve))
const input = (await baseInputs())['session.open']
const { allow, denials } = engine.decide('session.open', input, { decisionId: 'd_1' })
const codes = denials.map(({ code }) => code)
process.stdout.write(JSON.stringify({ origin: boot.origin, passed: boot.passed, allow, codes }))
