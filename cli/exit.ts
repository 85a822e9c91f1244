/**
 * Every exit code of `sallyport`, in one table, and the one error that a command ends with.
 * docs/cli.md prints the same table; test/cli/exit.test.ts compares the two.
 */

export interface ExitRow {
  readonly code: number
  readonly meaning: string
}

/** Codes 0 to 2 are also what `audit verify` promises: proven, violated, not provable. */
export const exits = {
  ok: { code: 0, meaning: 'Done. `audit verify`: proven.' },
  failed: {
    code: 1,
    meaning: 'Failed for a reason that is printed. `audit verify`: violated, with the place.',
  },
  usage: {
    code: 2,
    meaning: 'The command line or an input file is wrong. `audit verify`: not provable.',
  },
  denied: {
    code: 3,
    meaning: 'Policy or a role says no; the code says which rule.',
  },
  unauthenticated: {
    code: 4,
    meaning: 'Nobody is signed in under this profile, or the sign-in has ended.',
  },
  unreachable: {
    code: 5,
    meaning: 'The gateway does not answer, or is not the one that was pinned.',
  },
  ended: { code: 6, meaning: '`connect`: the gateway ended the session; the reason is printed.' },
  cannot_run: {
    code: 7,
    meaning: '`policy`: the compiler it needs is not here, so nothing was found out.',
  },
  restart: {
    code: 75,
    meaning:
      '`agent run`: it ended to be started again, as another version ([updates.md](updates.md)).',
  },
  interrupted: { code: 130, meaning: 'Interrupted before the work was done.' },
} as const satisfies Record<string, ExitRow>

export type Exit = keyof typeof exits

export interface CliErrorFacts {
  /** A closed code for programs: `grant.none`, `usage`, `gateway.unreachable`. */
  readonly code: string
  /** Which row of `exits` the process ends with. */
  readonly exit: Exit
  /** Why, in a sentence. */
  readonly why?: string | undefined
  /** What to do now. */
  readonly next?: string | undefined
  /** What finds it in the log: a decision or request id. */
  readonly id?: string | undefined
}

/** What a command throws: the message says what did not happen. main() prints it and ends. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly code: string
  readonly exit: Exit
  readonly why: string | undefined
  readonly next: string | undefined
  readonly id: string | undefined
  constructor(what: string, facts: CliErrorFacts, options?: ErrorOptions) {
    super(what, options)
    this.code = facts.code
    this.exit = facts.exit
    this.why = facts.why
    this.next = facts.next
    this.id = facts.id
  }
}

/** A mistake on the command line or in a file it names: exit 2. */
export function usage(what: string, next?: string, options?: ErrorOptions): CliError {
  return new CliError(what, { code: 'usage', exit: 'usage', next }, options)
}

/** Another program did the work and has said everything: its exit code is the command's. */
export class Passed extends Error {
  override readonly name = 'Passed'
  readonly code: number
  constructor(code: number) {
    super(String(code))
    this.code = code
  }
}

/** The command has said everything already; only its exit code is left. */
export class Exited extends Error {
  override readonly name = 'Exited'
  readonly exit: Exit
  constructor(exit: Exit) {
    super(exit)
    this.exit = exit
  }
}
