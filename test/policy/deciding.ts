/** An engine over a bundle, asked at the base input. */
import { PolicyEngine, type Bundle, type Decision, type Input, type Point } from '#policy'
import { baseInputs } from '../../policy/toolchain/vectors.ts'
import { handmade, withModule, type Handmade } from './fixture.ts'

export const bases = await baseInputs()
export const open = bases['session.open']

export async function engineOf(bundle: Bundle): Promise<PolicyEngine> {
  const engine = PolicyEngine.unavailable({ now: () => performance.now() })
  await engine.activate(bundle)
  return engine
}

export function decide(
  engine: PolicyEngine,
  input: Input,
  point: Point = 'session.open',
): Decision {
  return engine.decide(point, input, { decisionId: 'd_1' })
}

export function codes(decision: Decision): string[] {
  return decision.denials.map(({ code }) => code)
}

export async function answer(evaluation: Handmade['evaluation']): Promise<Decision> {
  return decide(await engineOf(withModule(handmade({ evaluation }))), open)
}

export const ALLOW = {
  v: 1,
  effect: 'allow',
  allow: true,
  reasons: [{ code: 'x' }],
  denials: [],
  obligations: {},
}
