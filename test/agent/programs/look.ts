/** Dials a port of this machine and prints what the process scope says of whoever accepted. */
import { connect } from 'node:net'
import { once } from 'node:events'
import { endpoint } from '../../../agent-tunnel/agent/scope/address.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'

const port = Number(process.argv[2])
const socket = connect({ port, host: '127.0.0.1' })
await once(socket, 'connect')
const local = endpoint(socket.localAddress ?? '', socket.localPort ?? 0)
const remote = endpoint('127.0.0.1', port)
if (local === undefined || remote === undefined) process.exit(2)
const scope = new ProcessScope()
const seen = await scope.observeAccepted({ local, remote }, 60_000)
console.log(
  JSON.stringify({
    accepted: seen.ok ? seen.sighting.observed : seen.why,
    unreadable: seen.ok ? seen.sighting.unreadable : null,
    listener: (await scope.exposures([remote]))[0]?.observed,
    recheck: seen.ok ? await scope.recheck(seen.sighting) : null,
  }),
)
socket.destroy()
