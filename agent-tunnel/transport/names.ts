/**
 * The addresses of names, as the system looks them up. That is a thread's work which nobody can call off, and of a
 * process only two such run at a time (libuv): so a name that hangs has one of them, however often it is asked for,
 * and the next name the other.
 */
export type LookUp = (host: string, family: 4 | 6) => Promise<readonly string[]>

interface Running {
  readonly 4: Promise<readonly string[]>
  readonly 6: Promise<readonly string[]>
}

export class Names {
  readonly #lookUp: LookUp
  readonly #running = new Map<string, Running>()

  /** `lookUp`: one family of one name; rejects where there is none. */
  constructor(lookUp: LookUp) {
    this.#lookUp = lookUp
  }

  /**
   * Those of one family; whoever asks while the name is looked up waits for the same answer, and the next one after
   * it asks anew. IPv4 is looked up before IPv6, since there are name servers that never answer for IPv6.
   */
  async addressesOf(host: string, family: 4 | 6): Promise<readonly string[]> {
    const key = host.toLowerCase()
    const running = this.#running.get(key) ?? this.#begin(host, key)
    return await running[family]
  }

  #begin(host: string, key: string): Running {
    const four = this.#lookUp(host, 4)
    const six = four.then(
      async () => await this.#lookUp(host, 6),
      async () => await this.#lookUp(host, 6),
    )
    const over = () => this.#running.delete(key)
    four.catch(() => {})
    six.then(over, over)
    const running = { 4: four, 6: six }
    this.#running.set(key, running)
    return running
  }
}
