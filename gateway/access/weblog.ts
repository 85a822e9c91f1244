/** A web request as the recording of its session keeps it: what was asked, what came back, never what was said. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { SessionRecording } from '../recordings/recordings.ts'
import type { Source } from '../facts.ts'

export interface Asked {
  readonly request: IncomingMessage
  readonly source: Source
  /** Of the person. */
  readonly user: string
  readonly decision: string
  /** Epoch milliseconds. */
  readonly now: () => number
}

/** One request, from its decision to its end. */
export class Witness {
  readonly #recording: SessionRecording
  readonly #asked: Asked
  readonly #at: number
  #status: number | undefined
  #type: string | undefined
  #bytesIn = 0
  #bytesOut = 0
  #upgraded = false
  #over = false

  constructor(recording: SessionRecording, asked: Asked) {
    this.#recording = recording
    this.#asked = asked
    this.#at = asked.now()
  }

  /** The body of the request, counted as it is read. */
  body(): Readable {
    return Readable.from(this.#read(), { objectMode: false })
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    for await (const chunk of this.#asked.request) {
      const bytes = chunk as Uint8Array
      this.#bytesIn += bytes.length
      yield bytes
    }
  }

  /** The same handler, which is seen. */
  watch(handler: Dispatcher.DispatchHandler): Dispatcher.DispatchHandler {
    return {
      ...handler,
      onRequestUpgrade: (controller, status, headers, socket) => {
        this.#upgraded = true
        handler.onRequestUpgrade?.(controller, status, headers, socket)
      },
      onResponseStart: (controller, status, headers, message) => {
        this.#status = status
        const type = headers['content-type']
        this.#type = Array.isArray(type) ? type[0] : type
        handler.onResponseStart?.(controller, status, headers, message)
      },
      onResponseData: (controller, chunk) => {
        this.#bytesOut += chunk.length
        handler.onResponseData?.(controller, chunk)
      },
    }
  }

  /** The answer has been passed on; an upgraded connection goes on. */
  done(): void {
    if (!this.#upgraded) this.end()
  }

  /** The connection that was made for it is over. */
  closed(token: string, { bytesIn, bytesOut }: { bytesIn: number; bytesOut: number }): void {
    if (!this.#upgraded) return
    this.#bytesIn = bytesIn
    this.#bytesOut = bytesOut
    this.end(undefined, token)
  }

  /** Writes it down, once. `code`: why there is no answer, or why it was refused. */
  end(code?: string, upgraded?: string): void {
    if (this.#over) return
    this.#over = true
    const { request, source, user, decision, now } = this.#asked
    this.#recording.web({
      at: this.#at,
      endedAt: now(),
      method: request.method ?? 'GET',
      host: request.headers.host ?? '',
      target: request.url ?? '/',
      ip: source.ip,
      user,
      status: upgraded === undefined ? this.#status : 101,
      requestType: request.headers['content-type'],
      responseType: this.#type,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      upgraded,
      decision,
      code,
    })
  }
}
