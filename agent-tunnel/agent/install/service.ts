/** The service of an installed agent: started where what it runs has changed, and looked at until its tunnel is up. */
import { AgentError } from '../errors.ts'
import { readStatus } from '../status.ts'
import { COMMAND } from './place.ts'
import { isActive, run } from './system.ts'
import { UNIT } from './unit.ts'

const CONNECT_MS = 60_000
const LOOK_MS = 200

/** Has the service run what was installed. */
export async function startService(changed: boolean, did: (what: string) => void): Promise<void> {
  const next = `See \`systemctl status ${UNIT}\` and \`journalctl -u ${UNIT}\`, then run this again.`
  await run('systemctl', ['daemon-reload'], next)
  await run('systemctl', ['enable', '--quiet', UNIT], next)
  // What runs already and is the same goes on: a restart ends the sessions that are open.
  if (!changed && (await isActive(UNIT))) return
  await run('systemctl', ['restart', UNIT], next)
  did('the service is started')
}

/** The name of the gateway once the tunnel to it is up. Rejects with AgentError `install.unconnected`. */
export async function connected(dataDir: string, signal: AbortSignal): Promise<string> {
  const until = performance.now() + CONNECT_MS
  for (;;) {
    const found = readStatus(dataDir)
    const { gateway, state, last_error: last } = found?.status ?? {}
    if (found?.alive === true && state === 'connected') return gateway ?? ''
    if (performance.now() > until || signal.aborted)
      throw new AgentError(
        'install.unconnected',
        `The service runs, and has no tunnel yet: ${last?.message ?? 'it is dialling.'}`,
        `It goes on trying. \`${COMMAND} doctor --data ${dataDir}\` names the hop that is broken.`,
      )
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}
