/** A recording that has the same facts in every test. */
import type { RecordingFacts } from '../../../audit/recorder.ts'

export const SESSION = 's_01j00000000000000000000000'

export function factsOf(): RecordingFacts {
  return {
    session: SESSION,
    format: 'asciicast',
    device: 'press-07',
    process: 'shell',
    grant: 'g_01j00000000000000000000000',
    began: 1_750_000_000_000,
    recipients: [],
  }
}
