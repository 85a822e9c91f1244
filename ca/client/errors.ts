/** What can go wrong between an agent and an EST server. */

/** A code of ours, or `server` when the server named its own (see `serverCode`). */
export type EstCode =
  | 'server'
  | 'response.status'
  | 'response.type'
  | 'response.body'
  | 'root.pin'
  | 'certificate.key'
  | 'certificate.name'
  | 'certificate.chain'
  | 'certificate.dates'
  | 'csr.names'

export class EstError extends Error {
  override readonly name = 'EstError'
  readonly code: EstCode
  /** HTTP status, when there was an answer. */
  readonly status: number | null
  /** The code the server put first in its text, such as `token.bound`. */
  readonly serverCode: string | null
  /** Retry-After of a refusal, when there was one. */
  readonly retryAfterSeconds: number | null
  constructor(
    code: EstCode,
    message: string,
    options: ErrorOptions & {
      readonly status?: number
      readonly serverCode?: string
      readonly retryAfterSeconds?: number
    } = {},
  ) {
    super(message, options)
    this.code = code
    this.status = options.status ?? null
    this.serverCode = options.serverCode ?? null
    this.retryAfterSeconds = options.retryAfterSeconds ?? null
  }
}
