/**
 * Getting certificates over EST (RFC 7030): the root by its pin, the first certificate by a token, the
 * following ones by the one before. The token is shown only to a gateway that has proven itself.
 */
import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { once } from 'node:events'
import type { TLSSocket } from 'node:tls'
import {
  EstError,
  acceptIssued,
  cacertsRequest,
  channelBinding,
  createCsr,
  createRenewalCsr,
  enrollRequest,
  pathTo,
  pinRoot,
  readCertificates,
  reenrollRequest,
} from '#est'
import type { EstAnswer, EstCall } from '#est'
import { systemClock } from '#tunnel'
import type { Clock } from '#tunnel'
import { DeviceClock } from './clock.ts'
import { readConfig, writeConfig } from './config.ts'
import type { AgentConfig } from './config.ts'
import { dialGateway } from './connect.ts'
import type { Dial } from './connect.ts'
import { AgentError, messageOf } from './errors.ts'
import { makeDirectory } from './files.ts'
import type { Identity, Pair, Prepared } from './identity.ts'
import { assertNoIsland } from './island.ts'
import type { Log } from './log.ts'
import { openIdentity } from './pkcs11.ts'
import { endOf } from './trust.ts'
import type { Anchors } from './trust.ts'
import { pinApprovers } from './two-keys.ts'
import { pinUpdateKeys } from './update/pin.ts'

/** What every exchange needs. */
interface Exchange {
  readonly config: AgentConfig
  readonly clock: DeviceClock
  readonly identity: Identity
  readonly signal?: AbortSignal | undefined
}

const TIMEOUT_MS = 30_000
const MAX_BODY_BYTES = 256 * 1024

/**
 * Fetches /cacerts, finds the root that `ca_sha256` pins, and keeps both. The connection need not be
 * trusted for this: the pin decides.
 * Throws AgentError `gateway.pin`, `gateway.answer`, and those of `dialGateway`.
 */
async function fetchAnchors(exchange: Exchange): Promise<Anchors> {
  const { config, identity } = exchange
  const answer = await converse(exchange, null, undefined, () => cacertsRequest())
  if (answer.kind === 'pending') throw unexpected('it asks to wait for the CA certificates')
  let root: Uint8Array
  try {
    root = pinRoot(answer.certificates, config.rootSha256)
  } catch (error) {
    const next =
      'Copy --ca-sha256 again from the gateway; if it still differs, this is not your gateway, or something between speaks in its place.'
    const message = `${config.gateway.host} has no root certificate with the SHA-256 that was given.`
    throw new AgentError('gateway.pin', message, next, { cause: error })
  }
  const rest = answer.certificates.filter((one) => Buffer.compare(one, root) !== 0)
  return identity.storeAnchors(root, rest)
}

/**
 * What stands under the pinned root today: an issuing CA that is new since the last time is learnt here,
 * before it signs for this device. The answer also tells the time, which decides whether `renew` is late.
 * A gateway that does not answer this may still renew, so what is known already has to do then.
 */
async function refreshAnchors(exchange: Exchange, known: Anchors): Promise<Anchors> {
  try {
    const answer = await converse(exchange, known, undefined, () => cacertsRequest())
    if (answer.kind === 'pending') return known
    const sent = answer.certificates.map((der) => new X509Certificate(Buffer.from(der)))
    const under = sent.filter((one) => pathTo(one, sent, known.root) !== undefined)
    const others = under.filter((one) => !one.raw.equals(known.root.raw))
    return exchange.identity.storeAnchors(
      known.root.raw,
      others.map(({ raw }) => raw),
    )
  } catch {
    exchange.signal?.throwIfAborted()
    return known
  }
}

/**
 * Gets the first certificate for the device of the config and stores it. Safe to run again after any
 * interruption: the same key asks again, and the gateway answers the same; what this token has got
 * already is given back without asking.
 * Throws AgentError `enrol.refused`, `enrol.pending`, `enrol.failed`, and those of the connection.
 */
async function enrol(exchange: Exchange, anchors: Anchors, token: string): Promise<Pair> {
  const { config, identity } = exchange
  const before = identity.gotBy(token)
  if (before !== undefined) return before
  const names = { deviceId: config.device, tenant: config.tenant }
  return await certified(exchange, identity.prepare(), async (prepared) => {
    identity.noteToken(token, prepared.slot)
    const answer = await converse(exchange, anchors, undefined, (socket) =>
      enrollRequest({ csr: createCsr(prepared.signer, names, bindingOf(socket)), token }),
    )
    return keep(exchange, anchors, prepared, answer)
  })
}

/**
 * Asks with a key that may have waited here for its certificate, since the power went. Where the
 * gateway knows that key as compromised, it is thrown away and a new one asks.
 */
async function certified(
  { identity, signal }: Exchange,
  prepared: Prepared,
  ask: (prepared: Prepared) => Promise<Pair>,
): Promise<Pair> {
  try {
    return await ask(prepared)
  } catch (error) {
    if (!(error instanceof AgentError) || error.serverCode !== 'key.compromised') throw error
    signal?.throwIfAborted()
    return await ask(identity.prepareInstead(prepared))
  }
}

/**
 * Renews `pair` into the other slot: with a new key while the certificate lasts, with the same one
 * after its end. Throws as `enrol` does.
 */
export async function renew(exchange: Exchange, known: Anchors, pair: Pair): Promise<Pair> {
  const { clock, identity } = exchange
  const anchors = await refreshAnchors(exchange, known)
  const late = clock.now() > pair.notAfter
  const first = late ? identity.prepareSameKey(pair) : identity.prepare()
  return await certified(exchange, first, async (prepared) => {
    const answer = await converse(exchange, anchors, pair, (socket) =>
      reenrollRequest({ csr: createRenewalCsr(prepared.signer, pair.leaf.raw, bindingOf(socket)) }),
    )
    return keep(exchange, anchors, prepared, answer)
  })
}

function keep(exchange: Exchange, anchors: Anchors, prepared: Prepared, answer: EstAnswer): Pair {
  const { config, clock, identity } = exchange
  if (answer.kind === 'pending') {
    throw new AgentError(
      'enrol.pending',
      'The gateway wants a person to approve this first.',
      `Ask an operator to approve the device, then run the same command again (in ${answer.retryAfterSeconds} s or later).`,
      { retryAfterMs: answer.retryAfterSeconds * 1_000 },
    )
  }
  const [leaf] = answer.certificates
  if (leaf === undefined) throw unexpected('it holds no certificate')
  // A clock in the past learns from the gateway's own statement that the certificate has begun.
  clock.notBefore(notBeforeOf(leaf))
  try {
    const issued = acceptIssued(leaf, {
      key: prepared.key,
      deviceId: config.device,
      tenant: config.tenant,
      authorities: [...answer.certificates.slice(1), ...anchors.authorities.map((one) => one.raw)],
      root: anchors.root.raw,
      now: clock.now(),
    })
    return identity.store(prepared, issued.chain)
  } catch (error) {
    if (error instanceof EstError) throw unexpected(error.message, error)
    throw error
  }
}

function notBeforeOf(der: Uint8Array): number {
  try {
    return new X509Certificate(Buffer.from(der)).validFromDate.getTime()
  } catch (error) {
    throw unexpected('it is not a certificate', error)
  }
}

function bindingOf(socket: TLSSocket): string | undefined {
  const binding = channelBinding(
    {
      getProtocol: () => socket.getProtocol(),
      exportKeyingMaterial: (length, label, context) =>
        socket.exportKeyingMaterial(length, label, Buffer.from(context)),
      isSessionReused: () => socket.isSessionReused(),
      getFinished: () => socket.getFinished(),
      getPeerFinished: () => socket.getPeerFinished(),
    },
    'client',
  )
  return binding === null ? undefined : Buffer.from(binding).toString('base64')
}

/** One connection, one request, one answer. */
async function converse(
  { config, clock, signal }: Exchange,
  anchors: Anchors | null,
  pair: Pair | undefined,
  ask: (socket: TLSSocket) => EstCall,
): Promise<EstAnswer> {
  const dial: Dial = {
    config,
    use: 'est',
    anchors,
    now: () => clock.now(),
    system: () => clock.system(),
    pair,
    signal,
  }
  const { socket } = await dialGateway(dial)
  try {
    const response = await send(socket, config.gateway.host, ask(socket), signal)
    // The handshake was fresh and its peer proven, so this is no old recording; to the second is enough.
    if (anchors !== null) clock.told(Date.parse(response.headers['date'] ?? ''), endOf(socket))
    return readCertificates(response)
  } catch (error) {
    signal?.throwIfAborted()
    throw error instanceof AgentError ? error : refusal(error)
  } finally {
    socket.destroy()
  }
}

interface Response {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: string
}

async function send(
  socket: TLSSocket,
  host: string,
  call: EstCall,
  signal?: AbortSignal,
): Promise<Response> {
  // Loaded when it is needed: an agent that waits does without.
  const { request: httpRequest } = await import('node:http')
  const limit = AbortSignal.timeout(TIMEOUT_MS)
  const request = httpRequest({
    createConnection: () => socket,
    method: call.method,
    path: call.path,
    headers: { host, ...call.headers },
    signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
  })
  request.end(call.body)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let body = ''
  response.setEncoding('latin1')
  for await (const chunk of response as AsyncIterable<string>) {
    body += chunk
    if (body.length > MAX_BODY_BYTES) throw unexpected('it is longer than any certificate chain')
  }
  const headers = Object.entries(response.headersDistinct).map(([name, values]) => [
    name,
    values?.join(', '),
  ])
  return {
    status: response.statusCode ?? 0,
    headers: Object.fromEntries(headers) as Record<string, string | undefined>,
    body,
  }
}

const AGAIN = 'Run the same command again: a failed attempt spends no token.'

function refusal(error: unknown): AgentError {
  if (!(error instanceof EstError)) {
    return new AgentError(
      'enrol.failed',
      `The gateway did not answer: ${messageOf(error)}.`,
      AGAIN,
      { cause: error },
    )
  }
  const serverCode = error.serverCode ?? undefined
  const { retryAfterSeconds } = error
  const retryAfterMs = retryAfterSeconds === null ? undefined : retryAfterSeconds * 1_000
  if (error.status === 401 || error.status === 403) {
    return new AgentError(
      'enrol.refused',
      `The gateway refused: ${error.message}`,
      'Ask for a new token for this device (`sallyport device token`), or an operator to look up the code in the log.',
      { cause: error, serverCode, retryAfterMs },
    )
  }
  if (error.code === 'server') {
    const message = `The gateway could not do it: ${error.message}`
    return new AgentError('enrol.failed', message, AGAIN, {
      cause: error,
      serverCode,
      retryAfterMs,
    })
  }
  return unexpected(error.message, error)
}

function unexpected(says: string, cause?: unknown): AgentError {
  return new AgentError(
    'gateway.answer',
    `The gateway's answer cannot be used: ${says}`,
    'Check that the address is the gateway itself; compare the versions of both sides.',
    { cause },
  )
}

export interface EnrolOptions {
  readonly token: string
  /** Who must sign what this device is opened for: the text of a file, and its name. */
  readonly approvers?: { readonly text: string; readonly path: string } | undefined
  /** Keys whose updates this device takes, as words; none: what is pinned stays. */
  readonly updateKeys?: readonly string[] | undefined
  readonly signal?: AbortSignal
  readonly log: Log
  /** Monotonic time; tests give their own. */
  readonly monotonic?: Clock
  /** The system's date, epoch ms. */
  readonly system?: () => number
}

/**
 * Makes this machine the device of `config`: writes agent.json, pins the root, gets the first
 * certificate. Run again after a failure or a power cut, it goes on where it stopped.
 *
 * A device whose gateway has a new root is given the new pin and a new token here, and keeps what it has.
 *
 * Throws AgentError: `agent.island` where the owner has cut the device off, `config.other_device` when the directory belongs to another device,
 * `data.unwritable`, and those of `pinApprovers`, `pinUpdateKeys`, `fetchAnchors` and `enrol`.
 */
export async function enrolAgent(config: AgentConfig, options: EnrolOptions): Promise<Pair> {
  const { token, signal, log } = options
  makeDirectory(config.dataDir)
  assertNoIsland(config.dataDir)
  const identity = openIdentity(config)
  const before = assertSameDevice(config, identity)
  // Before there is a certificate: a device that is to have two keys is never reachable with one.
  const { approvers, updateKeys = [] } = options
  if (approvers !== undefined) pinApprovers(config, approvers.text, approvers.path)
  if (updateKeys.length > 0) pinUpdateKeys(config.dataDir, updateKeys)
  // Under a new pin the old one stays until the gateway has shown a root that the new one names: a
  // mistyped pin must not take a device out of service.
  if (before === undefined || before.rootSha256 === config.rootSha256) writeConfig(config)
  const monotonic = options.monotonic ?? systemClock
  const clock = new DeviceClock({
    monotonic,
    system: options.system ?? Date.now,
    dataDir: config.dataDir,
  })
  const exchange: Exchange = { config, clock, identity, signal }
  const anchors = await fetchAnchors(exchange)
  writeConfig(config)
  log('info', 'root.pinned', { subject: anchors.root.subject, sha256: config.rootSha256 })
  const pair = await enrol(exchange, anchors, token)
  log('info', 'device.enrolled', {
    serial: pair.leaf.serialNumber,
    not_after: pair.leaf.validToDate.toISOString(),
  })
  return pair
}

/** What the directory was enrolled as; undefined where it has no pair yet. */
function assertSameDevice(config: AgentConfig, identity: Identity): AgentConfig | undefined {
  if (identity.pairs().length === 0) return undefined
  const before = readConfig(config.dataDir)
  if (before.device === config.device && before.tenant === config.tenant) return before
  throw new AgentError(
    'config.other_device',
    `${config.dataDir} belongs to the device ${before.device} of ${before.tenant}.`,
    'Name another directory with --data, or remove this one if that device is to be forgotten.',
  )
}
