/** Words that every part of the HTTP contract shares: ids, instants, problems, pages. */
import { Type, type Static } from 'typebox'

/** Device and process ids: the label of a host name, so that they can stand in one. */
export const NAME = '^[a-z0-9](?:[a-z0-9]|-(?!-)){0,38}[a-z0-9]$|^[a-z0-9]$'

export const Name = Type.String({ pattern: NAME, minLength: 1, maxLength: 40 })
export const GrantId = Type.String({ pattern: '^g_[0-9a-z]{26}$' })
export const SessionId = Type.String({ pattern: '^s_[0-9a-z]{26}$' })
/** Epoch seconds. */
export const Instant = Type.Integer({ minimum: 0, maximum: 253402300799 })
export const Seconds = Type.Integer({ minimum: 1, maximum: 366 * 86_400 })
export const Text = Type.String({ minLength: 1, maxLength: 500 })

/** One reason why not: a code for programs, a sentence for people, the way on where there is one. */
export const Denial = Type.Object({
  code: Type.String(),
  msg: Type.String(),
  remedy: Type.Optional(Type.String()),
  next_step: Type.Optional(Type.String()),
})
export type Denial = Static<typeof Denial>

/** RFC 9457, with what a person needs to act and an auditor needs to find it. */
export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
  next_step: Type.Optional(Type.String()),
  request_id: Type.String(),
  decision_id: Type.Optional(Type.String()),
  denials: Type.Optional(Type.Array(Denial)),
})
export type Problem = Static<typeof Problem>

export const Page = Type.Object(
  {
    /** `next` of the page before. */
    after: Type.Optional(Type.String({ maxLength: 800 })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 500, default: 100 })),
  },
  { additionalProperties: false },
)

/**
 * Windows that come back: from minute to minute of the wall clock (counted from midnight, above 1440 on the next day), on
 * days of the week (0 is Sunday, ascending), in a zone of the IANA database. Shorter than a day.
 */
export const Recurrence = Type.Object(
  {
    tz: Type.String({ minLength: 1, maxLength: 64 }),
    days: Type.Array(Type.Integer({ minimum: 0, maximum: 6 }), { minItems: 1, maxItems: 7 }),
    from_min: Type.Integer({ minimum: 0, maximum: 1439 }),
    to_min: Type.Integer({ minimum: 1, maximum: 2878 }),
  },
  { additionalProperties: false },
)

/** Addresses `from`..`to` of one Modbus unit, both inclusive; coils and registers alike. Unit 0 is every unit, and none that can be asked for. */
export const AddressWindow = Type.Object(
  {
    unit: Type.Integer({ minimum: 1, maximum: 255 }),
    from: Type.Integer({ minimum: 0, maximum: 65_535 }),
    to: Type.Integer({ minimum: 0, maximum: 65_535 }),
  },
  { additionalProperties: false },
)
