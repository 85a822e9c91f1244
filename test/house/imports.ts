/**
 * What a TypeScript source asks of other modules, and what it gives: a scanner of tokens, not a
 * parser. It knows strings, templates, comments and regular expressions, so a word inside one of
 * those is never taken for code. Decision 0003 says why it is our own.
 */

export type How = 'import' | 'import type' | 'export from' | 'dynamic' | 'require' | 'url'

export interface Import {
  readonly how: How
  /** null where the specifier is computed, so nobody can say what is loaded. */
  readonly from: string | null
  readonly line: number
}

export interface Token {
  readonly kind: 'word' | 'string' | 'template' | 'number' | 'regex' | 'mark'
  /** The word or mark itself; of a string its value without quotes; of a template its raw text. */
  readonly text: string
  readonly line: number
}

const BLANK = /\s+|\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)|^#![^\n]*/y
const STRING = /'(?:\\[^]|[^'\\\n])*'?|"(?:\\[^]|[^"\\\n])*"?/y
// A template comes in pieces: from ` or the } of a hole, to the next ` or ${.
const TEMPLATE = /[`}](?:\\[^]|\$(?!\{)|[^`\\$])*(?:`|\$\{|$)/y
const REGEX = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/\w*/y
const WORD = /#?[\p{ID_Start}$_][\p{ID_Continue}$]*/uy
const NUMBER = /\d[\w.]*/y
const MARK = /[^]/y
const PLAIN = [
  ['string', STRING],
  ['word', WORD],
  ['number', NUMBER],
] as const

// After these words a slash begins a regular expression; after any other word it divides.
const BEFORE_REGEX = new Set(
  'return typeof instanceof in of new delete void throw case do else yield await extends'.split(
    ' ',
  ),
)

/** Every token of a source, with the code inside `${…}` scanned as code. */
export function tokens(source: string): Token[] {
  const found: Token[] = []
  // How deep in braces each open template hole began.
  const holes: number[] = []
  let depth = 0
  let line = 1
  let at = 0
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at
    return pattern.exec(source)?.[0]
  }
  while (at < source.length) {
    const { kind, text } = next(take, found.at(-1), holes.at(-1) === depth)
    if (kind === 'string') found.push({ kind, text: unquote(text), line })
    else if (kind !== 'blank') found.push({ kind, text, line })
    if (kind === 'mark') depth += braces(text)
    if (kind === 'template' && text.startsWith('}')) holes.pop()
    if (kind === 'template' && text.endsWith('${')) holes.push(depth)
    line += text.split('\n').length - 1
    at += text.length
  }
  return found
}

type Take = (pattern: RegExp) => string | undefined

interface Piece {
  readonly kind: Token['kind'] | 'blank'
  readonly text: string
}

function next(take: Take, before: Token | undefined, inHole: boolean): Piece {
  const blank = take(BLANK)
  if (blank !== undefined) return { kind: 'blank', text: blank }
  const template = take(TEMPLATE)
  if (template !== undefined && (inHole || template.startsWith('`'))) {
    // One without holes is as good as a string.
    const whole = template.startsWith('`') && template.endsWith('`')
    return { kind: whole ? 'string' : 'template', text: template }
  }
  const slash = startsRegex(before) ? take(REGEX) : undefined
  if (slash !== undefined) return { kind: 'regex', text: slash }
  for (const [kind, pattern] of PLAIN) {
    const text = take(pattern)
    if (text !== undefined) return { kind, text }
  }
  return { kind: 'mark', text: take(MARK) ?? '' }
}

function braces(mark: string): number {
  if (mark === '{') return 1
  return mark === '}' ? -1 : 0
}

function startsRegex(before: Token | undefined): boolean {
  if (before === undefined) return true
  if (before.kind === 'word') return BEFORE_REGEX.has(before.text)
  if (before.kind === 'template') return before.text.endsWith('${')
  return before.kind === 'mark' && !')]}'.includes(before.text)
}

function unquote(literal: string): string {
  return literal
    .slice(1, -1)
    .replaceAll(/\\(?:u\{([0-9a-f]+)\}|u([0-9a-f]{4})|x([0-9a-f]{2})|(.))/gi, read)
}

function read(_all: string, ...parts: (string | number | undefined)[]): string {
  const [brace, four, two, plain] = parts
  const code = brace ?? four ?? two
  return code === undefined
    ? String(plain)
    : String.fromCodePoint(Number.parseInt(String(code), 16))
}

/** Every module a source names: static, type-only, re-exported, dynamic, required, or as a worker's URL. */
export function imports(all: readonly Token[]): Import[] {
  const found: Import[] = []
  for (const [at, token] of all.entries()) {
    const read =
      token.kind === 'word' && !isMark(all[at - 1], '.') ? READERS[token.text] : undefined
    const one = read?.(all, at)
    if (one !== undefined) found.push(one)
  }
  return found
}

/** By the word a thing begins with; an object's key of that name reads as nothing. */
const READERS: Readonly<Record<string, (all: readonly Token[], at: number) => Import | undefined>> =
  {
    __proto__: null as never,
    import: (all, at) => called('dynamic', all, at) ?? fromImport(all, at),
    export: fromExport,
    require: (all, at) => called('require', all, at),
    URL: url,
  }

function called(how: How, all: readonly Token[], at: number): Import | undefined {
  if (!isMark(all[at + 1], '(')) return undefined
  const argument = all[at + 2]
  const whole = isMark(all[at + 3], ')') || isMark(all[at + 3], ',')
  const from = argument?.kind === 'string' && whole ? argument.text : null
  return { how, from, line: lineOf(all, at) }
}

function fromImport(all: readonly Token[], at: number): Import | undefined {
  const next = all[at + 1]
  if (isMark(next, '.') || isMark(next, ':')) return undefined
  const line = lineOf(all, at)
  if (next?.kind === 'string') return { how: 'import', from: next.text, line }
  const from = clause(all, at + 1)
  if (from === undefined) return undefined
  return { how: isTypeOnly(all, at) ? 'import type' : 'import', from, line }
}

function fromExport(all: readonly Token[], at: number): Import | undefined {
  const first = isWord(all[at + 1], 'type') ? at + 2 : at + 1
  const end = afterList(all, first)
  const from = all[end + 1]
  if (!isWord(all[end], 'from') || from?.kind !== 'string') return undefined
  return { how: 'export from', from: from.text, line: lineOf(all, at) }
}

/** The place after `{ … }`, `*` or `* as name`; where there is none of them, nowhere. */
function afterList(all: readonly Token[], first: number): number {
  if (isMark(all[first], '*')) return isWord(all[first + 1], 'as') ? first + 3 : first + 1
  if (!isMark(all[first], '{')) return all.length
  const length = all.slice(first).findIndex((token) => isMark(token, '}'))
  return length === -1 ? all.length : first + length + 1
}

function lineOf(all: readonly Token[], at: number): number {
  return all[at]?.line ?? 0
}

/** `import type {…}` and `import type X`, but not `import type from 'x'`, whose name is `type`. */
function isTypeOnly(all: readonly Token[], at: number): boolean {
  if (!isWord(all[at + 1], 'type')) return false
  return !isWord(all[at + 2], 'from') || isWord(all[at + 3], 'from')
}

/** The specifier after `from`, if what stands between is an import clause. */
function clause(all: readonly Token[], start: number): string | undefined {
  let depth = 0
  for (const [at, token] of all.slice(start).entries()) {
    const next = all[start + at + 1]
    if (token.kind === 'mark') depth += braces(token.text)
    if (token.kind === 'mark' && !'{}*,'.includes(token.text)) return undefined
    if (isWord(token, 'from') && depth === 0 && next?.kind === 'string') return next.text
  }
  return undefined
}

/** `new URL('./worker.ts', import.meta.url)` loads a module too, if it names one. */
function url(all: readonly Token[], at: number): Import | undefined {
  const argument = all[at + 2]
  if (argument?.kind !== 'string' || !/^\.\.?\/.*\.(?:ts|mjs)$/.test(argument.text))
    return undefined
  return { how: 'url', from: argument.text, line: lineOf(all, at) }
}

/** Where a source has a default export or an `export *`, as the words of a complaint. */
export function badExports(
  all: readonly Token[],
): { readonly what: string; readonly line: number }[] {
  const found = []
  for (const [at, token] of all.entries()) {
    if (!isWord(token, 'export') || isMark(all[at - 1], '.')) continue
    const first = isWord(all[at + 1], 'type') ? at + 2 : at + 1
    if (isWord(all[at + 1], 'default')) found.push({ what: 'export default', line: token.line })
    else if (isMark(all[first], '*')) found.push({ what: 'export *', line: token.line })
    else if (isMark(all[first], '{') && namesDefault(all, first))
      found.push({ what: 'export default', line: token.line })
  }
  return found
}

/** Whether a list gives something away as `default`; `default as name` takes it, which is fine. */
function namesDefault(all: readonly Token[], start: number): boolean {
  for (let at = start; at < all.length && !isMark(all[at], '}'); at++)
    if (isWord(all[at], 'default') && !isWord(all[at + 1], 'as')) return true
  return false
}

export function isWord(token: Token | undefined, text: string): boolean {
  return token?.kind === 'word' && token.text === text
}

export function isMark(token: Token | undefined, text: string): boolean {
  return token?.kind === 'mark' && token.text === text
}
