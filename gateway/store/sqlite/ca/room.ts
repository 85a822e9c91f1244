/** The CA's room of store.sqlite, as the worker runs it. */
import type { Room } from '../rooms.ts'
import { certificateOperations } from './certificates.ts'
import { revocationOperations } from './revocations.ts'
import { migrations } from './tables.ts'
import { tokenOperations } from './tokens.ts'

export const caRoom = {
  migrations,
  operations: { ...tokenOperations, ...certificateOperations, ...revocationOperations },
} satisfies Room
