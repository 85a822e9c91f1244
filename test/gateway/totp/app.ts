/** An authenticator app as a person has one: it reads what an enrolment shows, and makes codes. */
import { TOTP, URI } from 'otpauth'
import decodeQR from 'qr/decode.js'
import { decode, type Page } from '../../support/browser.ts'

export interface App {
  /** The link that it read. */
  readonly uri: string
  /** The code at `at` (epoch milliseconds). */
  code(at: number): string
  /** One that is none of those that count at `at`. */
  wrong(at: number): string
}

export function appOf(uri: string): App {
  const totp = URI.parse(uri)
  if (!(totp instanceof TOTP)) throw new Error('no TOTP')
  const code = (at: number) => totp.generate({ timestamp: at })
  return {
    uri,
    code,
    wrong(at) {
      const right = new Set([-60, -30, 0, 30, 60].map((off) => code(at + off * 1000)))
      for (let one = 0; ; one++) {
        const text = String(one).padStart(6, '0')
        if (!right.has(text)) return text
      }
    },
  }
}

/** Reads the QR code of an enrolment's page, as a camera would: from its dots. */
export function readQr({ text }: Pick<Page, 'text'>): App {
  const size = Number(/viewBox="0 0 (\d+) \d+"/.exec(text)?.[1])
  const dots = /<path d="([^"]+)"/.exec(text)?.[1] ?? ''
  const scale = 4
  const width = size * scale
  const data = new Uint8Array(width * width * 3).fill(255)
  for (const [, x, y] of dots.matchAll(/M(\d+) (\d+)h1v1h-1z/g))
    for (let row = 0; row < scale; row++) {
      const from = ((Number(y) * scale + row) * width + Number(x) * scale) * 3
      data.fill(0, from, from + scale * 3)
    }
  return appOf(decodeQR({ width, height: width, data }))
}

/** What stands there to be typed, blanks apart. */
export function typedSecret({ text }: Pick<Page, 'text'>): string {
  return decode(/id="typed">([^<]+)</.exec(text)?.[1] ?? '').replaceAll(' ', '')
}
