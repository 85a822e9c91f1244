/** A person's terminal, as a client tells it and an agent is told it. docs/protocol.md section 13. */
import { Type, type Static } from 'typebox'

export const Characters = Type.Integer({ minimum: 1, maximum: 1000 })

export const Terminal = Type.Object({
  rows: Characters,
  cols: Characters,
  term: Type.String({ pattern: '^[A-Za-z0-9+._-]{1,64}$' }),
})
export type Terminal = Static<typeof Terminal>
