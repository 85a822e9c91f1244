/** A value with the place it stands in, so that a mistake in it is named with its place. */
import { AgentError } from './errors.ts'

/** One value of a source, with its place there, so that every mistake can be named. */
export class At {
  readonly value: unknown
  readonly #source: string
  readonly #place: string

  constructor(source: string, place: string, value: unknown) {
    this.#source = source
    this.#place = place
    this.value = value
  }

  inside(key: string, value: unknown): At {
    return new At(this.#source, this.#place === '' ? key : `${this.#place}.${key}`, value)
  }

  /** The value as an object. Throws `fail` where it is none. */
  record(): Record<string, unknown> {
    const { value } = this
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.fail('an object is expected')
    return value as Record<string, unknown>
  }

  fail(says: string): AgentError {
    const where = this.#place === '' ? this.#source : `${this.#source}: ${this.#place}`
    return new AgentError('config.invalid', `${where}: ${says}.`, `Correct ${where} and try again.`)
  }
}
