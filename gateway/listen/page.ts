/** A refusal as a person in a browser reads it: what, why, what next, and the id. Nothing is loaded from anywhere. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Problem } from '#api'
import { newId } from '../ids.ts'
import { toProblem, type Refusal } from '../problem.ts'

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}

function html(problem: Problem): string {
  const next =
    problem.next_step === undefined
      ? ''
      : `<p><strong>Next step:</strong> ${escape(problem.next_step)}</p>`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escape(problem.title)}</title></head>
<body><main><h1>${escape(problem.title)}</h1>
<p>${escape(problem.detail)}</p>
${next}
<p><small>${escape(problem.code)} · ${escape(problem.request_id)}</small></p></main></body></html>
`
}

/** Answers with a page where the client prefers one, else with application/problem+json. */
export function refusePage(
  request: IncomingMessage,
  response: ServerResponse,
  refusal: Refusal,
): void {
  const problem = toProblem(refusal, newId('r'))
  const page = request.headers.accept?.includes('text/html') ?? false
  response.writeHead(problem.status, {
    'content-type': page ? 'text/html; charset=utf-8' : 'application/problem+json',
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    ...(request.complete ? {} : { connection: 'close' }),
  })
  response.end(page ? html(problem) : JSON.stringify(problem))
}
