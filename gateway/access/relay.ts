/** An application's answer on its way to the browser. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Dispatcher } from 'undici'
import { responseHeaders } from './headers.ts'

/** Names and values in turn as they stood on the wire, which undici keeps beside the joined ones. */
export function rawHeaders(controller: Dispatcher.DispatchController): string[] {
  const raw = (controller as { rawHeaders?: Buffer[] }).rawHeaders
  return raw?.map((item) => item.toString('latin1')) ?? []
}

/** undici's events as a node response, with back-pressure and both kinds of leaving early. */
export function relay(
  request: IncomingMessage,
  response: ServerResponse,
  resolve: () => void,
  reject: (error: Error) => void,
): Dispatcher.DispatchHandler {
  let controller: Dispatcher.DispatchController | undefined
  response.once('close', () => {
    if (!response.writableFinished) controller?.abort(new Error('the browser left'))
  })
  return {
    onRequestStart(started) {
      controller = started
      if (response.destroyed) started.abort(new Error('the browser left'))
    },
    onResponseStart(started, status, _headers, statusMessage) {
      // Interim answers are between the device and us (a 103 would end undici's reply).
      if (status < 200 || response.headersSent) return
      response.writeHead(status, statusMessage ?? '', responseHeaders(rawHeaders(started)))
      if (request.method === 'HEAD') response.flushHeaders()
    },
    onResponseData(started, chunk) {
      if (response.write(chunk)) return
      started.pause()
      response.once('drain', () => started.resume())
    },
    onResponseEnd() {
      response.end()
      resolve()
    },
    onResponseError(_started, error) {
      const cause: unknown = error
      if (response.destroyed) resolve()
      else reject(cause instanceof Error ? cause : new Error(String(cause)))
    },
  }
}
