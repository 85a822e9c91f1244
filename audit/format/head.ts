/** A signed head as it is sent in the stream, behind the last event it covers. */
import type { Checkpoint } from '../checkpoint.ts'
import { ocsfVersion } from './ocsf.ts'

/** The code that receivers know it by; it is no event of the log. */
export const headCode = 'audit.checkpoint'

/** One OCSF object. `time`: of the last event it covers, epoch ms. */
export function formatHead({ origin, size, root, note }: Checkpoint, time: number): string {
  return JSON.stringify({
    class_uid: 1008,
    category_uid: 1,
    activity_id: 99,
    activity_name: 'Checkpoint',
    type_uid: 100_899,
    time,
    severity_id: 1,
    message: `Signed head of ${size} events`,
    log_name: origin,
    unmapped: { sallyport: { size, root, note } },
    metadata: {
      version: ocsfVersion,
      product: { name: 'Sallyport', vendor_name: 'Sallyport' },
      log_name: origin,
      event_code: headCode,
    },
  })
}
