/**
 * The writing rules that keep a policy closed, read from the compiler's own syntax tree. In Rego a
 * denial written positively (`x != y`) does not fire when the field is missing; `not _helper` does.
 */

export interface Finding {
  readonly rule: string
  readonly file: string
  readonly line: number
  readonly fix: string
}

interface Location {
  readonly row: number
}
interface Term {
  readonly type: string
  readonly value: unknown
}
interface Expression {
  readonly negated?: boolean
  readonly terms: Term | readonly Term[] | { readonly symbols?: unknown; readonly domain?: unknown }
}
interface Rule {
  readonly head: {
    readonly name?: string
    readonly ref?: readonly Term[]
    readonly key?: Term
    readonly value?: Term
    readonly args?: readonly Term[]
  }
  readonly body: readonly Expression[]
  readonly default?: boolean
  readonly else?: Rule
  readonly location?: Location
}
export interface Tree {
  readonly package: { readonly path: readonly Term[] }
  readonly rules?: readonly Rule[]
}

function isTerm(value: unknown): value is Term {
  return typeof value === 'object' && value !== null && 'type' in value && 'value' in value
}

/** `_helper`, `facts.helper`, `input.device.island`: a name or a path of constants, no arguments. */
function isPlainName(term: Term): boolean {
  if (term.type === 'var') return true
  if (term.type !== 'ref' || !Array.isArray(term.value)) return false
  const [, ...rest] = term.value as readonly Term[]
  return rest.every((part) => part.type === 'string')
}

function isLiteral(term: Term): boolean {
  return ['string', 'number', 'boolean'].includes(term.type)
}

function isEquality(terms: readonly Term[]): boolean {
  const [operator, left, right] = terms
  if (operator === undefined || left === undefined || right === undefined) return false
  const name = Array.isArray(operator.value) ? (operator.value as readonly Term[])[0]?.value : ''
  return name === 'equal' && isPlainName(left) && isLiteral(right)
}

function closes(expression: Expression): boolean {
  if (expression.negated !== true) return false
  const { terms } = expression
  if (Array.isArray(terms)) return isEquality(terms as readonly Term[])
  return isTerm(terms) && isPlainName(terms)
}

/** `some x in access.deny`: passing on a set that was linted where it was written. */
function passesOn(expression: Expression): boolean {
  const { terms } = expression
  return (
    expression.negated !== true && 'symbols' in terms && JSON.stringify(terms).includes('"deny"')
  )
}

function nameOf(rule: Rule): string {
  const first = rule.head.ref?.[0]?.value
  return rule.head.name ?? (typeof first === 'string' ? first : '')
}

function hasCode(term: Term | undefined): boolean {
  return term?.type === 'object' && JSON.stringify(term.value).includes('"code"')
}

function rulesOf(tree: Tree): Rule[] {
  const all: Rule[] = []
  for (const rule of tree.rules ?? []) {
    for (let at: Rule | undefined = rule; at !== undefined; at = at.else) all.push(at)
  }
  return all
}

/** Whether a name is used anywhere in a part of the tree. */
function uses(part: unknown, name: string): boolean {
  if (Array.isArray(part)) return part.some((item) => uses(item, name))
  if (typeof part !== 'object' || part === null) return false
  if (isTerm(part) && part.type === 'var' && part.value === name) return true
  return Object.values(part).some((item) => uses(item, name))
}

/** The findings in one customer or default file; the library has its own tests. */
export function lintTree(tree: Tree, file: string): Finding[] {
  const findings: Finding[] = []
  for (const rule of rulesOf(tree)) {
    const line = rule.location?.row ?? 0
    const name = nameOf(rule)
    const partial = rule.head.key !== undefined
    if (name === 'deny' && partial) {
      const closed = rule.body.length === 1 && rule.body.every((e) => closes(e) || passesOn(e))
      if (!closed)
        findings.push({
          rule: 'deny-closes',
          file,
          line,
          fix: 'write the body as one `not _helper` or `not a.b == literal`, so that a missing field denies',
        })
    }
    if (name === 'allow' && partial && !hasCode(rule.head.key))
      findings.push({ rule: 'allow-has-code', file, line, fix: 'give the allow a "code"' })
    if (uses(rule.body, 'walk'))
      findings.push({ rule: 'no-walk', file, line, fix: 'name the fields you read' })
  }
  return findings
}

export interface CodeUse {
  readonly code: string
  readonly msg: string | undefined
  readonly remedy: string | undefined
}

function literalField(source: string, field: string): string | undefined {
  return new RegExp(`"${field}":\\s*"([^"]*)"`).exec(source)?.[1]
}

/** Every object with a literal code in a Rego source, with its sentence and remedy. */
export function codesIn(source: string): CodeUse[] {
  const objects = source.match(/\{\s*"code":[^}]*\}/g) ?? []
  return objects.flatMap((text) => {
    const code = literalField(text, 'code')
    if (code === undefined) return []
    return [{ code, msg: literalField(text, 'msg'), remedy: literalField(text, 'remedy') }]
  })
}
