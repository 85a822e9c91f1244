/**
 * Ports for what is started with one, in this process or another, or comes back to the one it had. The kernel gives
 * them to nobody who did not ask for that number, and no other test file that runs now is given the same.
 */
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** From here on, and below 32768, where Linux begins to hand out ports by itself. */
const [FIRST, BEYOND] = [10_240, 32_768]
/** How many test files may run side by side. */
const SHARES = 16
const own = Number(process.env['VITEST_POOL_ID'] ?? 0) % SHARES
const given = new Set<number>()

/** A loopback port on which nobody listens. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + SHARES * randomInt((BEYOND - FIRST) / SHARES) + own
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  const listening = once(server, 'listening').then(
    () => true,
    () => false,
  )
  server.listen(port, '127.0.0.1')
  const free = await listening
  if (free) await new Promise((resolve) => server.close(resolve))
  return free
}
