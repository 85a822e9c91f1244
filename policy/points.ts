/** One row per decision point: its entry point in the module, its ceiling, and what the host insists on. */
import type { Input, Point } from './envelope.ts'

/** What must be an object in the input, else the host denies before Rego is asked. */
type Part = 'client' | 'device' | 'process' | 'session' | 'ot' | 'enroll' | 'renew' | 'tunnel'
export type RequiredPart = Part | 'request' | 'approval' | 'http' | 'admin'

export interface PointRow {
  readonly entrypoint: string
  readonly needs: readonly RequiredPart[]
  /** Seconds no obligation may exceed at this point. */
  readonly maxDurationSeconds: number
}

const HOUR = 3600
const DAY = 24 * HOUR
const SESSION_CEILING = 12 * HOUR

export const POINTS = {
  'device.enroll': {
    entrypoint: 'sallyport/device/enroll/decision',
    needs: ['device', 'enroll'],
    maxDurationSeconds: 31 * DAY,
  },
  'device.renew': {
    entrypoint: 'sallyport/device/renew/decision',
    needs: ['device', 'renew'],
    maxDurationSeconds: 31 * DAY,
  },
  'tunnel.connect': {
    entrypoint: 'sallyport/tunnel/connect/decision',
    needs: ['device', 'tunnel'],
    maxDurationSeconds: 31 * DAY,
  },
  'grant.request': {
    entrypoint: 'sallyport/grant/request/decision',
    needs: ['device', 'request'],
    maxDurationSeconds: 31 * DAY,
  },
  'grant.approve': {
    entrypoint: 'sallyport/grant/approve/decision',
    needs: ['device', 'approval'],
    maxDurationSeconds: 31 * DAY,
  },
  'session.open': {
    entrypoint: 'sallyport/session/open/decision',
    needs: ['client', 'device', 'process'],
    maxDurationSeconds: SESSION_CEILING,
  },
  'session.reevaluate': {
    entrypoint: 'sallyport/session/reevaluate/decision',
    needs: ['client', 'device', 'process', 'session'],
    maxDurationSeconds: SESSION_CEILING,
  },
  'ot.verb': {
    entrypoint: 'sallyport/ot/verb/decision',
    needs: ['client', 'device', 'process', 'session', 'ot'],
    maxDurationSeconds: SESSION_CEILING,
  },
  'http.request': {
    entrypoint: 'sallyport/http/request/decision',
    needs: ['client', 'device', 'process', 'session', 'http'],
    maxDurationSeconds: SESSION_CEILING,
  },
  'admin.api': {
    entrypoint: 'sallyport/admin/api/decision',
    needs: ['admin'],
    maxDurationSeconds: HOUR,
  },
} as const satisfies Record<Point, PointRow>

export const POINT_NAMES = Object.keys(POINTS) as readonly Point[]
/** Asked of a decision record before it leaves the node: what of it stays here. */
export const LOG_MASK = 'system/log/mask'
export const ENTRYPOINTS: readonly string[] = [
  ...POINT_NAMES.map((point) => POINTS[point].entrypoint),
  LOG_MASK,
]

/** The part of the input that this point cannot do without and that is missing, or nothing. */
export function missingPart(point: Point, input: Input): RequiredPart | 'time.epoch_s' | undefined {
  if (input.time.epoch_s === null) return 'time.epoch_s'
  return POINTS[point].needs.find((part) => input[part] === null)
}
