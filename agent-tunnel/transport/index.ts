/** #tunnel: a connection becomes a Tunnel, whatever carries it. */
export { systemClock } from './clock.ts'
export { driveTunnel } from './drive.ts'
export { ALPN, dialTls } from './tls.ts'
export {
  acceptWebSocket,
  dialWebSocket,
  driveWebSocket,
  shakeWebSocket,
  SUBPROTOCOL,
  WEBSOCKET_PATH,
} from './websocket.ts'
export { printAddress, ProxyError, readAnchor, readProxy, readProxyLogin } from './proxy.ts'
export type { Address, Proxy, ProxyCode, ProxyLogin } from './proxy.ts'
export { reach } from './reach.ts'
export { flush } from './flush.ts'
export { Outlet, PIECE } from './outlet.ts'
export { readInto } from './socket.ts'
export { SlabWriter } from './slabs.ts'
export { dialUnix, listenUnix } from './unix.ts'
export { memoryPair } from './memory.ts'
export { answerRelay, openRelay, readRelayed, writeRelayed } from './relay.ts'
export type { Relayed } from './relay.ts'
export { TunnelClosed, TunnelRefused } from './tunnel.ts'
export type {
  Clock,
  CloseReason,
  Goaway,
  Offer,
  Peer,
  Tunnel,
  TunnelOptions,
  TunnelStats,
  TunnelStream,
} from './tunnel.ts'
export { Budget, MuxError } from '#mux'
export type { Fault, Limits, Monotonic, MuxCode, Role, Side, StreamKind } from '#mux'
