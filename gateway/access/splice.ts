/**
 * Two streams as one connection: bytes, ends and back-pressure pass; what passes is counted and held
 * to the session's limits. Credit goes back to one side only when the other side took the bytes.
 */
import type { CloseReason, TunnelStream } from '#tunnel'
import type { Carrier } from '../sessions/live.ts'
import { Pace } from './pace.ts'

export interface SpliceOptions {
  /** The person's side, and the device's. */
  readonly client: TunnelStream
  readonly device: TunnelStream
  readonly maxBandwidthBps: number
  /** Counts bytes as they pass; false cuts, because a limit is reached. */
  readonly meter: (direction: 'in' | 'out', bytes: number) => boolean
  /** Called once, when neither side can pass a byte any more. */
  readonly onEnd: (why: CloseReason) => void
}

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** Joins the two and gives the handle that ends both. */
export function splice(options: SpliceOptions): Carrier {
  const { client, device } = options
  const done = Promise.withResolvers<void>()
  let open = 2
  let first: CloseReason | undefined
  const closed = (why: CloseReason, other: TunnelStream) => {
    first ??= why
    if (why.code !== 'done') other.reset(why.code, why.message)
    if (--open > 0) return
    done.resolve()
    options.onEnd(first)
  }
  client.onClose = (why) => closed(why, device)
  device.onClose = (why) => closed(why, client)
  carry(client, device, 'in', options)
  carry(device, client, 'out', options)
  // The person learns of the countdown and of the end; the device's owner of nothing but the end.
  device.onSignal = () => {}
  client.onSignal = () => {}
  return {
    async cut(code, message) {
      client.signal(encode({ t: 'ending', code, msg: message }))
      client.reset(code, message)
      device.reset(code, message)
      await done.promise
    },
  }
}

function carry(from: TunnelStream, to: TunnelStream, direction: 'in' | 'out', options: SpliceOptions): void {
  const pace = new Pace(options.maxBandwidthBps, performance.now())
  let owed = 0
  let waiting: NodeJS.Timeout | undefined
  let full = false
  const giveBack = () => {
    if (full || waiting !== undefined || owed === 0) return
    const bytes = owed
    owed = 0
    from.consumed(bytes)
  }
  from.onData = (chunk) => {
    if (!options.meter(direction, chunk.length)) {
      from.reset('byte.limit', 'the session has carried as much as its grant allows')
      to.reset('byte.limit', 'the session has carried as much as its grant allows')
      return
    }
    owed += chunk.length
    if (!to.write(chunk)) full = true
    const wait = pace.take(chunk.length, performance.now())
    if (wait > 0 && waiting === undefined) {
      waiting = setTimeout(() => {
        waiting = undefined
        giveBack()
      }, wait)
      waiting.unref()
    }
    giveBack()
  }
  to.onDrain = () => {
    full = false
    giveBack()
  }
  from.onEnd = () => to.end()
}
