/** What the launcher is told: one JSON value, written by the agent and read by nobody else. */
export interface LaunchSpec {
  readonly argv: readonly string[]
  /** `NAME=value`, all of it. */
  readonly env: readonly string[]
  readonly cwd: string
  /** Whom to become; null where it is already whom it has to be. */
  readonly user: { readonly uid: number; readonly gid: number } | null
  readonly terminal: boolean
  /** Numbers of setrlimit(2), soft and hard alike. */
  readonly limits: readonly { readonly resource: number; readonly most: number }[]
}

/** What the launcher says where it did not come to exec: which step, and why. */
export interface LaunchFailure {
  readonly step: string
  readonly why: string
}

/** What the launcher says last before exec; what follows is a failure of exec itself. */
export const GOING = '\n'

/** Descriptors of the launcher beside the program's own three. */
export const PROGRAM_FD = 3
export const CONTROL_FD = 4
