/**
 * `run` of the agent in one file: this process becomes, with the same process id, the agent that is to run here, under
 * the arguments that keep Node small. Which one that is, #boot says; docs/updates.md "On the device".
 */
import { resolve } from 'node:path'
import { isSea } from 'node:sea'
import { chooseAgent, Shelf, UPDATE_WORD, watchTrial, type Chosen } from '#boot'
import { leanManner, type Manner } from './lean.ts'
import { STARTED, startedAs } from './started.ts'
import { VERSION } from './version.ts'

/** Becomes the agent that is to run; comes back where this is it. `words`: what follows the file on the line. */
export function becomeAgent(words: readonly string[]): void {
  if (startedAs() !== undefined || typeof process.execve !== 'function') return
  const lean = leanManner()
  const own = isSea() ? [] : [process.argv[1] ?? '']
  const folder = dataOf(words)
  // What comes of it is given to a shell and to Node, which takes a file by its whole path.
  if (folder !== undefined) becomeChosen(new Shelf(resolve(folder)), lean, own, words)
  else if (lean !== undefined) become([...lean.args, ...own], words, lean.env)
}

function becomeChosen(
  shelf: Shelf,
  lean: Manner | undefined,
  own: readonly string[],
  words: readonly string[],
): void {
  const chosen = chooseAgent(shelf, VERSION)
  const { path, kept, trialS } = chosen
  warnOf(chosen)
  const env = { ...lean?.env, [STARTED]: `${VERSION} ${kept?.sha256 ?? '-'}` }
  if (path === undefined && lean === undefined) {
    Object.assign(process.env, env)
    return
  }
  if (trialS !== undefined) watchTrial(shelf, trialS)
  // An executable has its arguments in it, and would take any other for a word of ours.
  const args = isSea() ? [] : (lean?.args ?? process.execArgv)
  const file = path === undefined || kept === null ? own : fileOf(kept.sha256, path)
  become([...args, ...file], words, env)
}

/** How the update at `path` is named to what runs it: to Node by its place, to the executable by its octets, too. */
function fileOf(sha256: string, path: string): readonly string[] {
  return isSea() ? [UPDATE_WORD, sha256, path] : [path]
}

function become(
  first: readonly string[],
  words: readonly string[],
  env: Readonly<Record<string, string>>,
): void {
  process.execve?.(process.execPath, [process.execPath, ...first, ...words], {
    ...process.env,
    ...env,
  })
}

/** The data directory on a line, as commander reads it; the last one counts. */
function dataOf(words: readonly string[]): string | undefined {
  return words.reduce<string | undefined>((found, word, at) => {
    if (word.startsWith('--data=')) return word.slice('--data='.length)
    return word === '--data' ? (words[at + 1] ?? found) : found
  }, undefined)
}

/** Says what was in the way of what should have started. */
function warnOf({ kept, damaged, fault }: Chosen): void {
  if (fault !== undefined) warn('update.not_looked', { reason: fault })
  if (damaged !== null)
    warn('update.damaged', { version: damaged.version, starts: kept?.version ?? VERSION })
}

/** As the agent itself logs. */
function warn(event: string, fields: Readonly<Record<string, string>>): void {
  const line = { time: new Date().toISOString(), level: 'error', event, ...fields }
  process.stderr.write(`${JSON.stringify(line)}\n`)
}
