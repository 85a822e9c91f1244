/**
 * Asks a device to look now who listens for its targets. What it tells of its own accord is as old as its last look; who
 * would be refused for that is not, before it has looked again.
 */

/** A device that does not answer keeps nobody waiting longer. */
const PATIENCE_MS = 2000

/** The questions to one device by one tunnel: one at a time, and one behind it for all who ask meanwhile. */
export class Looks {
  /** Has the device told to look, under this number; absent while it cannot be, and of one that does not know how. */
  #say: ((id: number) => void) | undefined
  #id = 0
  #running: Promise<void> | undefined
  #behind: PromiseWithResolvers<void> | undefined
  #answered = (): void => {}

  /** From now on `say` reaches the device. */
  reaches(say: (id: number) => void): void {
    this.#say = say
  }

  /**
   * Resolves when the device has looked after this call and what it saw is known here, or has not answered in 2 s; at once
   * where it cannot be asked.
   */
  async ask(): Promise<void> {
    if (this.#say === undefined) return
    if (this.#running === undefined) return await this.#start()
    this.#behind ??= Promise.withResolvers<void>()
    await this.#behind.promise
  }

  /** The device has looked, as it was asked to under that number. */
  answered(id: number): void {
    if (id === this.#id) this.#answered()
  }

  /** The tunnel is gone: nobody waits, and nobody is asked again. */
  end(): void {
    this.#say = undefined
    this.#answered()
  }

  #start(): Promise<void> {
    const say = this.#say
    if (say === undefined) return Promise.resolve()
    const { promise, resolve } = Promise.withResolvers<void>()
    const over = (): void => {
      if (this.#running !== promise) return
      clearTimeout(timer)
      this.#running = undefined
      resolve()
      const behind = this.#behind
      this.#behind = undefined
      // In the same breath: whoever asks from here on finds it running.
      if (behind !== undefined) void this.#start().then(behind.resolve)
    }
    // What came while this thread was too busy to read it is read first: the device was not silent.
    const timer = setTimeout(() => setImmediate(over), PATIENCE_MS)
    this.#answered = over
    this.#running = promise
    say(++this.#id)
    return promise
  }
}
