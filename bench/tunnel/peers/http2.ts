/** node:http2 as the mux: the gateway asks a POST per line over the connection that the agent dialled. */
import { connect, performServerHandshake, type Http2Session } from 'node:http2'
import { answerAsHop, join, startHops, type Carriage } from '../hop.ts'
import type { Peer } from '../path.ts'

const WINDOW = 16 * 1024 * 1024
const options = {
  settings: { initialWindowSize: WINDOW, maxFrameSize: 64 * 1024, maxConcurrentStreams: 8192 },
  peerMaxConcurrentStreams: 8192,
  maxSessionMemory: 4096,
}

/** The window of the whole connection, which no option sets. */
function widen(session: Http2Session & { setLocalWindowSize(size: number): void }): void {
  session.setLocalWindowSize(WINDOW)
}

const carriage: Carriage = {
  gateway(uplink) {
    const session = connect('https://agent', { ...options, createConnection: () => uplink })
    session.on('error', () => uplink.destroy())
    session.once('remoteSettings', () => widen(session))
    return (line) => join(line, session.request({ ':method': 'POST', ':path': '/' }))
  },
  agent(uplink, toTarget) {
    const session = performServerHandshake(uplink, options)
    session.on('error', () => uplink.destroy())
    session.once('remoteSettings', () => widen(session))
    session.on('stream', (stream) => {
      stream.respond({ ':status': 200 })
      join(stream, toTarget())
    })
  },
}

export const http2: Peer = {
  name: 'http2',
  says: 'node:http2 streams between two Node processes, 16 MiB windows',
  start: (site) => startHops(import.meta.filename, site),
}

if (import.meta.main) answerAsHop(carriage)
