/** When something must be looked at again: a binary heap of instants. Pure; the caller keeps the timer. */

interface Entry {
  readonly at: number
  readonly id: string
}

/** One deadline per id; setting it again moves it. Instants are epoch milliseconds. */
export class Deadlines {
  readonly #heap: Entry[] = []
  readonly #current = new Map<string, number>()

  get size(): number {
    return this.#current.size
  }

  set(id: string, at: number): void {
    this.#current.set(id, at)
    this.#push({ at, id })
    // Moved entries stay behind; without this a session that is re-armed often would grow the heap.
    if (this.#heap.length > 64 && this.#heap.length > 4 * this.#current.size) this.#rebuild()
  }

  clear(id: string): void {
    this.#current.delete(id)
  }

  /** The earliest instant, or undefined when nothing waits. */
  next(): number | undefined {
    this.#dropStale()
    return this.#heap[0]?.at
  }

  /** Takes out every id whose instant has come. */
  due(now: number): string[] {
    const out: string[] = []
    for (;;) {
      this.#dropStale()
      const top = this.#heap[0]
      if (top === undefined || top.at > now) return out
      this.#pop()
      this.#current.delete(top.id)
      out.push(top.id)
    }
  }

  #dropStale(): void {
    for (;;) {
      const top = this.#heap[0]
      if (top === undefined || this.#current.get(top.id) === top.at) return
      this.#pop()
    }
  }

  #rebuild(): void {
    this.#heap.length = 0
    for (const [id, at] of this.#current) this.#push({ at, id })
  }

  #push(entry: Entry): void {
    const heap = this.#heap
    let at = heap.push(entry) - 1
    while (at > 0) {
      const up = (at - 1) >> 1
      const parent = heap[up]
      if (parent === undefined || parent.at <= entry.at) break
      heap[at] = parent
      at = up
    }
    heap[at] = entry
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      const right = heap[child + 1]
      let least = heap[child]
      if (least === undefined) break
      if (right !== undefined && right.at < least.at) {
        least = right
        child++
      }
      if (least.at >= last.at) break
      heap[at] = least
      at = child
    }
    heap[at] = last
  }
}
