/**
 * Which parts of the input a policy can read, from its sources. Always at least what it reads: a path
 * counts whole from where the source stops naming it, and `input` without a path counts as everything.
 * What is not read need not be handed to the module; a logged decision that lacks it can be replayed.
 */

/** true: this part and all below; else the parts below that are read. */
export type Reads = true | ReadonlyMap<string, Reads>

// Comments and strings are stepped over, whole: what they say reads nothing.
const TOKEN = /#[^\n]*|"(?:\\.|[^"\\\n])*"|`[^`]*`|\binput\b((?:\.[A-Za-z_][A-Za-z0-9_]*)*)/g
/** A template string evaluates what it holds; a quote left open means the lexer was lost. */
const TEMPLATE = /\$["`]/

/**
 * Paths below `input` that sources name, dotted and sorted, `input` alone where one reads it as a whole.
 * Takes: the texts of all Rego files of a policy.
 */
export function readPaths(sources: readonly string[]): string[] {
  const paths = new Set<string>()
  for (const source of sources) {
    if (TEMPLATE.test(source)) paths.add('input')
    for (const [token, tail] of source.matchAll(TOKEN)) {
      if (tail !== undefined) paths.add(token)
    }
    if (/["`]/.test(source.replace(TOKEN, ''))) paths.add('input')
  }
  return [...paths].toSorted()
}

type Tree = Map<string, true | Tree>

/** The paths as a tree. A step called `__proto__` is never followed: its holder is read whole. */
export function readsOf(paths: readonly string[]): Reads {
  const root: Tree = new Map()
  for (const path of paths) {
    const steps = path.split('.').slice(1)
    const odd = steps.indexOf('__proto__')
    if (!follow(root, odd < 0 ? steps : steps.slice(0, odd))) return true
  }
  return root
}

/** Marks one path; false where it is the whole input. */
function follow(root: Tree, steps: readonly string[]): boolean {
  const last = steps.at(-1)
  if (last === undefined) return false
  let at = root
  for (const step of steps.slice(0, -1)) {
    const below = at.get(step) ?? new Map<string, true | Tree>()
    if (below === true) return true
    at.set(step, below)
    at = below
  }
  at.set(last, true)
  return true
}
