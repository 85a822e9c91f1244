/** Every way in which a key of this node cannot be used; the message says what to do about it. */

export type KeyCode =
  | 'key.unreadable'
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
  constructor(code: KeyCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
