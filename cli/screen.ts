/**
 * A recorded terminal on the auditor's own: what draws passes, what makes a terminal answer, report, copy, rename or
 * hold input does not. What is replayed was written by somebody else's program.
 */

/** Controls that move or draw. ENQ (05) asks for an answer; DC1 and DC3 hold input up; C1 controls hide sequences. */
const DRAWN = new Set([0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f])
/** Finals of control sequences that draw: cursor, erase, insert, scroll, colours, margins. */
const FINALS = /^[@A-HJ-MPSTXZ`a-bd-gmrsu]$/
/** Modes that change what is seen; all others (mouse, focus, paste) would have the terminal send input. */
const MODES = new Set([
  '?1',
  '?3',
  '?5',
  '?6',
  '?7',
  '?12',
  '?25',
  '?45',
  '?47',
  '?1047',
  '?1048',
  '?1049',
  '4',
])
/** What an escape alone may do: save, restore, index, tabs, keypad, reset. */
const ESCAPES = /^[78DEHMc=>]$/
/** Longer than any sequence that draws. */
const MAX_SEQUENCE = 64

/**
 * Puts back what a recording may have left: colours, the other screen, a hidden cursor, margins, character sets, the
 * keys' modes, reverse video, origin, wrapping, insertion.
 */
export const RESTORE = [
  '[0m',
  '[?1049l',
  '[?25h',
  '[?1l',
  '[?5l',
  '[?6l',
  '[?7h',
  '[4l',
  '[20l',
  '[r',
  '(B',
  ')B',
  '>',
]
  .map((sequence) => `\u001b${sequence}`)
  .join('')
  .concat('\u000f\r\n')

type State = 'text' | 'escape' | 'charset' | 'sequence' | 'string' | 'string-escape'

/** Keeps its place between pieces: a sequence may be split over two events. */
export class Screen {
  #state: State = 'text'
  #held = ''

  /** What of `text` may be written to a terminal. */
  show(text: string): string {
    let out = ''
    for (const letter of text) out += this.#take(letter, letter.codePointAt(0) ?? 0)
    return out
  }

  #take(letter: string, code: number): string {
    switch (this.#state) {
      case 'text':
        return this.#text(letter, code)
      case 'escape':
        return this.#escape(letter, code)
      case 'charset':
        this.#state = 'text'
        return /^[0AB]$/.test(letter) ? `\u001b${this.#held}${letter}` : ''
      case 'sequence':
        return this.#sequence(letter, code)
      case 'string':
        // BEL, or ESC \, ends it; nothing of it is shown.
        if (code === 0x1b) this.#state = 'string-escape'
        else if (code === 0x07 || code === 0x9c) this.#state = 'text'
        return ''
      case 'string-escape':
        if (letter === '\\') {
          this.#state = 'text'
          return ''
        }
        return this.#escape(letter, code)
    }
  }

  #text(letter: string, code: number): string {
    if (code === 0x1b) {
      this.#state = 'escape'
      return ''
    }
    if (code < 0x20) return DRAWN.has(code) ? letter : ''
    return code >= 0x7f && code < 0xa0 ? '' : letter
  }

  #escape(letter: string, code: number): string {
    this.#state = 'text'
    if (code === 0x1b) this.#state = 'escape'
    else if (letter === '[') {
      this.#state = 'sequence'
      this.#held = ''
    } else if (letter === '(' || letter === ')') {
      this.#state = 'charset'
      this.#held = letter
    } else if (/^[\]PX^_]$/.test(letter)) this.#state = 'string'
    else if (ESCAPES.test(letter)) return `\u001b${letter}`
    return ''
  }

  #sequence(letter: string, code: number): string {
    if (code === 0x1b) {
      this.#state = 'escape'
      return ''
    }
    if (code < 0x20 || code > 0x7e || this.#held.length > MAX_SEQUENCE) {
      this.#state = 'text'
      return ''
    }
    if (code < 0x40) {
      this.#held += letter
      return ''
    }
    this.#state = 'text'
    return allowed(this.#held, letter) ? `\u001b[${this.#held}${letter}` : ''
  }
}

function allowed(parameters: string, final: string): boolean {
  if (final === 'h' || final === 'l') {
    const [, mark = '', list = ''] = /^(\??)([\d;]*)$/.exec(parameters) ?? []
    return list !== '' && list.split(';').every((mode) => MODES.has(`${mark}${mode}`))
  }
  return FINALS.test(final) && /^[\d;:]*$/.test(parameters)
}
