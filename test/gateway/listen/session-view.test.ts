/** What a person is told of a session between its last byte and the record of its end. */
import { expect, test } from 'vitest'
import { view } from '../../../gateway/listen/routes/sessions.ts'
import type { LiveSession } from '../../../gateway/sessions/live.ts'
import type { SessionRecord } from '../../../gateway/sessions/session.ts'

const record: SessionRecord = {
  id: 's_0j1v56ddcypw85xdsx5ag8wc2a',
  grant: 'g_0j1v56ddcypw85xdsx5ag8wc2a',
  device: 'press-07',
  process: 'plc',
  kind: 'tcp',
  identity: 'vera',
  email: null,
  party: 'vendor',
  opened_at: 1000,
  expires_at: 2000,
  ended_at: null,
  reason: null,
  bytes_in: 0,
  bytes_out: 0,
  connections: 0,
  time_to_cut_ms: null,
}
const live = { streams: new Set(), bytesIn: 7, bytesOut: 9 } as unknown as LiveSession

test.for<[string, Partial<SessionRecord>, LiveSession | undefined, string]>([
  ['alive', {}, live, 'open'],
  ['silent, its end not recorded: no reason is promised', {}, undefined, 'ending'],
  ['recorded', { ended_at: 1500, reason: 'byte_limit' }, undefined, 'ended'],
  ['recorded, while it is being taken down', { ended_at: 1500, reason: 'killed' }, live, 'ended'],
])('%s', ([, changes, alive, state]) => {
  const shown = view({ ...record, ...changes }, alive)
  expect(shown.state).toBe(state)
  expect(shown.reason !== null).toBe(state === 'ended')
})
