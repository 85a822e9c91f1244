/**
 * One look for everybody who asked before it began. Who asks while it runs waits for the next, so
 * that no answer is older than its question, and a thousand connections cost a few looks.
 */

export class Shared<Question, Answer> {
  readonly #look: (questions: readonly Question[]) => Promise<Answer>
  #next: { readonly questions: Question[]; readonly answer: Promise<Answer> } | undefined
  #running: Promise<unknown> = Promise.resolve()

  constructor(look: (questions: readonly Question[]) => Promise<Answer>) {
    this.#look = look
  }

  /** The answer of a look that begins after this call. Rejects as the look does. */
  ask(question: Question): Promise<Answer> {
    this.#next ??= this.#plan()
    this.#next.questions.push(question)
    return this.#next.answer
  }

  #plan(): { readonly questions: Question[]; readonly answer: Promise<Answer> } {
    const questions: Question[] = []
    const answer = this.#running.then(() => {
      this.#next = undefined
      return this.#look(questions)
    })
    // The one after it begins when it is through, however it went.
    this.#running = answer.catch(() => undefined)
    return { questions, answer }
  }
}
