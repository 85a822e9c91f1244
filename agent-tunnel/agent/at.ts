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

  fail(says: string): AgentError {
    const where = this.#place === '' ? this.#source : `${this.#source}: ${this.#place}`
    return new AgentError('config.invalid', `${where}: ${says}.`, `Correct ${where} and try again.`)
  }
}
