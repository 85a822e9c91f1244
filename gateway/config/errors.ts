/** A mistake in what a node was told has a code and a place. */
export type ConfigCode = 'config.unreadable' | 'config.syntax' | 'config.value'

/** A mistake in what the node was told; always the operator's to mend. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly code: ConfigCode
  /** `file:line:column`, or the name of the variable. */
  readonly place: string
  constructor(code: ConfigCode, place: string, message: string, options?: ErrorOptions) {
    super(`${place}: ${message}`, options)
    this.code = code
    this.place = place
  }
}
