/** What can go wrong in the agent: one row per code, with whom it concerns and how a program should end. */

/**
 * `exit` is the exit code of a command that ends with it: 1 failed, 2 the caller's mistake, 3 refused by
 * the gateway. `hop` is where on the way it broke, for `doctor`.
 */
interface Row {
  readonly exit: 1 | 2 | 3
  readonly hop:
    | 'config'
    | 'identity'
    | 'dns'
    | 'tcp'
    | 'proxy'
    | 'tls'
    | 'certificate'
    | 'clock'
    | 'websocket'
    | 'tunnel'
    | 'enrol'
}

const rows = {
  'config.missing': { exit: 2, hop: 'config' },
  'config.invalid': { exit: 2, hop: 'config' },
  'config.other_device': { exit: 2, hop: 'config' },
  'token.missing': { exit: 2, hop: 'config' },
  'agent.running': { exit: 2, hop: 'config' },
  'agent.island': { exit: 1, hop: 'config' },
  'consent.none': { exit: 2, hop: 'config' },
  'data.unreadable': { exit: 1, hop: 'config' },
  'data.unwritable': { exit: 1, hop: 'config' },
  'approvers.invalid': { exit: 2, hop: 'config' },
  'approvers.pinned': { exit: 2, hop: 'config' },
  'approvers.refused': { exit: 3, hop: 'config' },
  'update.keys': { exit: 2, hop: 'config' },
  'update.pinned': { exit: 2, hop: 'config' },
  'identity.missing': { exit: 2, hop: 'identity' },
  'identity.broken': { exit: 1, hop: 'identity' },
  'identity.expired': { exit: 1, hop: 'identity' },
  'identity.token': { exit: 1, hop: 'identity' },
  'proxy.secret': { exit: 2, hop: 'config' },
  'proxy.ca_file': { exit: 2, hop: 'config' },
  'proxy.name_unknown': { exit: 1, hop: 'dns' },
  'proxy.unreachable': { exit: 1, hop: 'tcp' },
  'proxy.untrusted': { exit: 1, hop: 'proxy' },
  'proxy.auth': { exit: 1, hop: 'proxy' },
  'proxy.refused': { exit: 1, hop: 'proxy' },
  'proxy.gateway_unreachable': { exit: 1, hop: 'proxy' },
  'proxy.answer': { exit: 1, hop: 'proxy' },
  'gateway.name_unknown': { exit: 1, hop: 'dns' },
  'gateway.unreachable': { exit: 1, hop: 'tcp' },
  'gateway.tls': { exit: 1, hop: 'tls' },
  'gateway.alpn': { exit: 1, hop: 'tls' },
  'gateway.pin': { exit: 1, hop: 'certificate' },
  'gateway.untrusted': { exit: 1, hop: 'certificate' },
  'gateway.wrong_name': { exit: 1, hop: 'certificate' },
  'gateway.expired': { exit: 1, hop: 'clock' },
  'gateway.websocket': { exit: 1, hop: 'websocket' },
  'gateway.answer': { exit: 1, hop: 'enrol' },
  'enrol.refused': { exit: 3, hop: 'enrol' },
  'enrol.pending': { exit: 3, hop: 'enrol' },
  'enrol.failed': { exit: 1, hop: 'enrol' },
  'install.unfit': { exit: 2, hop: 'config' },
  'install.failed': { exit: 1, hop: 'config' },
  'install.unconnected': { exit: 1, hop: 'tunnel' },
  'tunnel.refused': { exit: 3, hop: 'tunnel' },
  'tunnel.failed': { exit: 1, hop: 'tunnel' },
} as const satisfies Record<string, Row>

/** Closed: docs/agent.md lists every code. */
export type AgentCode = keyof typeof rows

export const agentCodes: Readonly<Record<AgentCode, Row>> = rows

/** A failure with a sentence for a person (`message`), the next step (`next`) and the code. */
export class AgentError extends Error {
  override readonly name = 'AgentError'
  readonly code: AgentCode
  readonly next: string
  /** The gateway's own code, where it said one (`token.bound`, `device.quarantined`). */
  readonly serverCode: string | undefined
  /** When the gateway said that asking again makes sense. */
  readonly retryAfterMs: number | undefined

  constructor(
    code: AgentCode,
    message: string,
    next: string,
    options: ErrorOptions & {
      readonly serverCode?: string | undefined
      readonly retryAfterMs?: number | undefined
    } = {},
  ) {
    super(message, options)
    this.code = code
    this.next = next
    this.serverCode = options.serverCode
    this.retryAfterMs = options.retryAfterMs
  }
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The `code` of a thrown system error (ENOENT, ECONNREFUSED), or an empty string. */
export function systemCode(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : ''
  return typeof code === 'string' ? code : ''
}
