/** What a Markdown page claims that can be checked: code, links, headings, commands. */

export interface Fence {
  readonly language: string
  readonly text: string
  readonly line: number
}

/** Fenced code blocks, with the line of their first line of code. */
export function fences(page: string): Fence[] {
  const found: Fence[] = []
  let open: { mark: string; language: string; lines: string[]; line: number } | undefined
  for (const [at, text] of page.split('\n').entries()) {
    const mark = /^ *(`{3,}|~{3,}) *([\w-]*)/.exec(text)
    if (open === undefined && mark !== null)
      open = { mark: mark[1] ?? '', language: mark[2] ?? '', lines: [], line: at + 2 }
    else if (open !== undefined && mark !== null && text.trim() === open.mark) {
      found.push({ language: open.language, text: open.lines.join('\n'), line: open.line })
      open = undefined
    } else open?.lines.push(text)
  }
  return found
}

/** The page without its fenced blocks, line for line. */
export function prose(page: string): string {
  const lines = page.split('\n')
  for (const { text, line } of fences(page)) {
    const length = text.split('\n').length
    for (let at = line - 2; at < line + length; at++) lines[at] = ''
  }
  return lines.join('\n')
}

/** Targets of inline links, images and reference definitions. */
export function links(page: string): string[] {
  const text = prose(page).replaceAll(/`[^`\n]*`/g, '')
  const inline = [...text.matchAll(/\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g)]
  const references = [...text.matchAll(/^ {0,3}\[[^\]]+\]:\s*(\S+)/gm)]
  return [...inline, ...references].map((match) => match[1] ?? '')
}

/** The anchors that a page's headings make. */
export function anchors(page: string): string[] {
  const seen = new Map<string, number>()
  return [...prose(page).matchAll(/^#{1,6} +(.+?) *#*$/gm)].map((match) => {
    const slug = (match[1] ?? '')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(/\s/g, '-')
    const times = seen.get(slug) ?? 0
    seen.set(slug, times + 1)
    return times === 0 ? slug : `${slug}-${times}`
  })
}

/** Everything a page sets as code, one line each: inline spans and the lines of its blocks. */
export function code(page: string): string[] {
  const spans = [...prose(page).matchAll(/`([^`\n]+)`/g)].map((match) => match[1] ?? '')
  const blocks = fences(page)
    .filter(({ language }) => !['ts', 'typescript', 'rego', 'json', 'yaml'].includes(language))
    .flatMap(({ text }) => text.replaceAll(/\\\n\s*/g, '').split('\n'))
  return [...spans, ...blocks]
}

/** The scripts that a line of code runs through npm. */
export function scripts(line: string): string[] {
  const named = [...line.matchAll(/\bnpm (?:run|run-script) (?:-[\w-]+ )*([\w:-]+)/g)].map(
    (match) => match[1] ?? '',
  )
  const short = [...line.matchAll(/\bnpm (test|start|stop|restart)\b/g)].map(
    (match) => match[1] ?? '',
  )
  return [...named, ...short]
}

/** The words after each `sallyport` in a line of code, up to the end of that command. */
export function invocations(line: string): string[][] {
  const starts = [
    ...line.matchAll(
      /(?:^|[\s$(])(?:npx )?(?:sallyport|node \S*cli\/bin\.mjs)((?: +[^\s|;&#>)]+)+)/g,
    ),
  ]
  return starts.map((match) => (match[1] ?? '').trim().split(/ +/))
}

/** What commander says of a command, as far as it is needed here. */
export interface CommandLike {
  name(): string
  readonly commands: readonly CommandLike[]
  readonly options: readonly { readonly long?: string | null; readonly short?: string | null }[]
  readonly registeredArguments: readonly unknown[]
  readonly parent: CommandLike | null
}

/** Why an invocation could not be one of this program; nothing if it could. */
export function misused(program: CommandLike, words: readonly string[]): string | undefined {
  const end = words.indexOf('--')
  const own = end === -1 ? words : words.slice(0, end)
  let at = program
  for (const [place, word] of own.entries()) {
    if (word.startsWith('-')) continue
    const next = at.commands.find((command) => command.name() === word)
    if (next === undefined && !isArgument(at, word, own[place - 1])) return `no command ${word}`
    at = next ?? at
  }
  const options = chain(at).flatMap((command) =>
    command.options.flatMap(({ long, short }) => [long, short]),
  )
  const known = ['--help', '-h', ...options]
  const flags = own.filter((word) => word.startsWith('-')).map((word) => word.replace(/=.*/, ''))
  const stranger = flags.find((flag) => !known.includes(flag))
  return stranger === undefined ? undefined : `no option ${stranger}`
}

/** Whether a word that is no command may stand there; an ellipsis stands for whatever else there is. */
function isArgument(at: CommandLike, word: string, before = ''): boolean {
  return (
    word === '…' ||
    at.commands.length === 0 ||
    at.registeredArguments.length > 0 ||
    before.startsWith('-')
  )
}

function chain(command: CommandLike): CommandLike[] {
  return command.parent === null ? [command] : [command, ...chain(command.parent)]
}
