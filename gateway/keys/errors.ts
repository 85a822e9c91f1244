/** Every way in which a key of this node cannot be used; the message says what to do about it. */

export type KeyCode =
  | 'key.unreadable'
  | 'key.unwritable'
  | 'key.exposed'
  | 'key.passphrase'
  | 'key.mismatch'
  | 'ca.busy'
  | 'ca.state'
  | 'ca.exists'
  | 'ca.absent'
  | 'ca.waiting'
  | 'ca.refused'
  | 'ca.root_away'
  | 'ca.exported'
  | 'hsm.binding'
  | 'hsm.unavailable'
  | 'hsm.key'

export class KeyError extends Error {
  override readonly name = 'KeyError'
  readonly code: KeyCode
  /** What to do now, where the message does not say it. */
  readonly next: string | undefined
  constructor(code: KeyCode, message: string, options: ErrorOptions & { next?: string } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.next = options.next
  }
}
