/** Policy as a site might have written it: the built-in answers, with other obligations on an allow. */
import { onTestFinished, vi } from 'vitest'
import { PolicyEngine, type Decision, type Obligations } from '#policy'

/** Until the test ends, every allow carries `change`. */
export function oblige(change: Partial<Obligations>): void {
  answer((decision) =>
    decision.allow
      ? { ...decision, obligations: { ...decision.obligations, ...change } }
      : decision,
  )
}

/** Until the test ends, `change` has the last word on every decision. */
export function answer(
  change: (decision: Decision, point: string, input: unknown) => Decision,
): void {
  // oxlint-disable-next-line typescript/unbound-method -- called with the engine as `this` below
  const real = PolicyEngine.prototype.decide
  const spy = vi.spyOn(PolicyEngine.prototype, 'decide').mockImplementation(function (
    this: PolicyEngine,
    point,
    input,
    options,
  ) {
    return change(real.call(this, point, input, options), point, input)
  })
  onTestFinished(() => spy.mockRestore())
}
