/**
 * The start of an agent in one file: the installed one looks which agent it is to be, remembers that it starts it, and
 * becomes it. Whatever is wrong with an update, some agent starts. docs/updates.md "On the device".
 */
import { spawn } from 'node:child_process'
import { rankOf } from '#update'
import type { Shelf } from './shelf.ts'
import { nextStart, type Kept, type Start } from './state.ts'

/** What is to be run. */
export interface Chosen {
  /** Its file; undefined: the installed agent. */
  readonly path: string | undefined
  readonly kept: Kept | null
  /** It is on trial: seconds in which it must have proved healthy. */
  readonly trialS: number | undefined
  /** What should have started, had proved healthy, and is not any more what a pinned key signed. */
  readonly damaged: Kept | null
  /** What was in the way, in a sentence. */
  readonly fault: string | undefined
}

const INSTALLED: Chosen = {
  path: undefined,
  kept: null,
  trialS: undefined,
  damaged: null,
  fault: undefined,
}

/**
 * Which agent starts on `dataDir`, where `installed` is the version that is installed. What must be remembered of that
 * is, before this returns; where it cannot be, an update on trial is not started. Never throws.
 */
export function chooseAgent(shelf: Shelf, installed: string): Chosen {
  try {
    return choose(shelf, installed)
  } catch (error) {
    const fault = error instanceof Error ? error.message : String(error)
    return { ...withoutWriting(shelf, installed), fault }
  }
}

function choose(shelf: Shelf, installed: string): Chosen {
  if (rankOf(installed) < 0) return INSTALLED
  const before = shelf.state(installed)
  const start = soundStart(shelf, nextStart(before, { installed, late: shelf.late }), installed)
  if (JSON.stringify(start.state) !== JSON.stringify(before)) shelf.remember(start.state)
  const { trial } = start.state
  const onTrial = trial !== null && trial.sha256 === start.run?.sha256
  shelf.markTrial(onTrial)
  return chosen(shelf, start, onTrial ? trial.health : undefined)
}

interface Sound extends Start {
  readonly damaged: Kept | null
}

/** The start that can be made: one after the other is left out whose file is not what was signed. */
function soundStart(
  shelf: Shelf,
  start: Start,
  installed: string,
  damaged: Kept | null = null,
): Sound {
  const state = shelf.sound(start.state, start.run)
  if (state === undefined) return { ...start, damaged }
  // What becomes of one on trial is its outcome.
  const lost = state.trial === start.state.trial ? (damaged ?? start.run) : damaged
  return soundStart(shelf, nextStart(state, { installed, late: false }), installed, lost)
}

/** A disk that takes nothing: what proved healthy starts, and nothing is tried. */
function withoutWriting(shelf: Shelf, installed: string): Chosen {
  try {
    const start = nextStart({ ...shelf.state(installed), trial: null }, { installed, late: false })
    return chosen(shelf, soundStart(shelf, start, installed), undefined)
  } catch {
    return INSTALLED
  }
}

function chosen(shelf: Shelf, { run, damaged }: Sound, trialS: number | undefined): Chosen {
  return {
    path: run === null ? undefined : shelf.pathOf(run.sha256),
    kept: run,
    trialS,
    damaged,
    fault: undefined,
  }
}

/**
 * An agent on trial that does not even run its own clock is ended so long after that should have. The watch begins
 * before it is loaded, its own clock after that, which takes a slow device half a minute.
 */
const GRACE_S = 120
/**
 * $1: seconds, $2: the folder. Ends whoever started it, and says so, if it is still there and on trial then: nothing of
 * the agent itself has to work for that, and no disk: where it cannot be said, the start counts as one that ended.
 * A redirection that fails would end the shell itself, so another one has it. proc_pid_status(5).
 */
const WATCH = `sleep "$1"
[ -e "$2/on-trial" ] || exit 0
while read -r name value; do [ "$name" != PPid: ] || parent=$value; done <"/proc/$$/status"
[ "$parent" = "$PPID" ] || exit 0
(: >"$2/late") 2>/dev/null
kill -9 "$PPID"`

/** Has this process ended when it is still on trial so many seconds from now, and a little. */
export function watchTrial(shelf: Shelf, seconds: number, graceS = GRACE_S): void {
  const child = spawn('/bin/sh', ['-c', WATCH, 'sh', String(seconds + graceS), shelf.folder], {
    stdio: 'ignore',
    detached: true,
    cwd: '/',
    env: { PATH: '/usr/local/bin:/usr/bin:/bin' },
  })
  child.on('error', () => {})
  child.unref()
}
