/**
 * Tickets: what one looks like, and whether the owner's ticket system stands by it. What cannot be found out is no valid
 * ticket: nobody is let in by a system that is down.
 */
import { readFileSync } from 'node:fs'
import { Type, type Static } from 'typebox'
import type { Statement } from '#approval'
import { signedPost } from '../post.ts'
import { Refusal } from '../problem.ts'

const File = Type.String({ minLength: 1 })

export const TicketSettings = Type.Object(
  {
    /** The whole of a ticket, as a regular expression. */
    pattern: Type.String({ minLength: 1, maxLength: 200 }),
    /** Who is asked whether it is one. */
    webhook: Type.Optional(
      Type.Object(
        {
          url: Type.String({ pattern: '^https://[^\\s/?#@]+(/[^\\s?#]*)?$' }),
          ca_file: File,
          secret_file: File,
          servername: Type.Optional(Type.String({ minLength: 1 })),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
)
export type TicketSettings = Static<typeof TicketSettings>

/** Whether the ticket of a statement is valid, or why it is refused. A statement without one has nothing to look at. */
export type TicketCheck = (statement: Statement) => Promise<Refusal | undefined>

/** The pattern of whole tickets. Throws SyntaxError. */
export function ticketPattern(pattern: string): RegExp {
  return new RegExp(`^(?:${pattern})$`, 'u')
}

const DEADLINE_MS = 5_000

/** What looks at tickets. Throws for a file that cannot be read, or holds no secret. */
export function openTickets({ pattern, webhook }: TicketSettings, now: () => number): TicketCheck {
  const looks = ticketPattern(pattern)
  const ask = webhook === undefined ? undefined : validator(webhook, now)
  return async (statement) => {
    const { ticket } = statement
    if (ticket === null) return undefined
    if (!looks.test(ticket)) return refused('no ticket looks like this here')
    return await ask?.(statement, ticket)
  }
}

const refused = (detail: string) =>
  new Refusal('ticket.invalid', detail, { nextStep: 'ask the plant for the ticket of this work' })

function validator(
  { url, ca_file, secret_file, servername }: NonNullable<TicketSettings['webhook']>,
  now: () => number,
) {
  const secret = readFileSync(secret_file, 'utf8').trim()
  if (secret.length < 16) throw new Error(`${secret_file} holds no secret of 16 letters or more`)
  const named = servername === undefined ? {} : { servername }
  const ca = readFileSync(ca_file)
  const post = signedPost({ url, ca, secret, now, deadlineMs: DEADLINE_MS, ...named })
  return async (statement: Statement, ticket: string): Promise<Refusal | undefined> => {
    const { id, requester, vendor, devices, processes } = statement
    const [device = ''] = devices
    const question = { v: 1, ticket, grant: id, requester, company: vendor, device, processes }
    const valid = await post(question).then(readAnswer, () => undefined)
    if (valid === true) return undefined
    if (valid === false) return refused('the ticket system does not stand by this ticket')
    return new Refusal('ticket.unavailable', 'the ticket system gives no answer', {
      nextStep: 'try again in a while; tell the platform owner if it stays so',
    })
  }
}

/** `{"valid": true}` or `false` with status 200; anything else is no answer. */
export function readAnswer({
  status,
  body,
}: {
  readonly status: number
  readonly body: Buffer
}): boolean | undefined {
  if (status !== 200) return undefined
  try {
    const value: unknown = JSON.parse(body.toString('utf8'))
    if (typeof value !== 'object' || value === null || !('valid' in value)) return undefined
    return typeof value.valid === 'boolean' ? value.valid : undefined
  } catch {
    return undefined
  }
}
