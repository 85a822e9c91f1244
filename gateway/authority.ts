/** The node's own CA, as it runs: what signs, what is accepted, and what an operator changed meanwhile. */
import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { encodePem, instant, issueServer, openIssuers } from '#ca'
import type { CaLog, CaStore, Issuers, IssuerSource } from '#ca'
import type { Config } from './config.ts'
import { activateDue, initCa } from './keys/acts.ts'
import { KeyError } from './keys/errors.ts'
import { keyFile, replaceFile } from './keys/file.ts'
import {
  namesOf,
  openRoom,
  random,
  readDer,
  signerAt,
  strikeOff,
  type CaRoom,
} from './keys/room.ts'
import { readState, STATE_FILE, type Act, type CaState, type IssuingEntry } from './keys/state.ts'
import { warningsOf } from './keys/status.ts'
import type { EdgeCertificate } from './listen/edge.ts'

export interface Authority extends Disposable {
  /** What signs and what is accepted now. */
  readonly issuers: Issuers
  /** PEM of the root: what devices and people pin. */
  readonly rootPem: string
  /** SHA-256 of the root's DER, hex. */
  readonly rootSha256: string
  /** PEM of every CA whose clients may present a certificate, roots included. */
  readonly clientAuthorities: readonly string[]
  /** PEM that joins an old and a new root, for clients that pinned the old one. */
  readonly crosses: readonly string[]
  /** What an operator should see at every start, a sentence each. */
  readonly warnings: readonly string[]
  /**
   * Takes over what a command changed, and lets a waiting issuing CA sign when its time has come.
   * True if anything changed. A change that cannot be opened is refused and the old CA goes on.
   */
  refresh(): Promise<boolean>
}

/** Resolves when the act is durable in the log; nothing of it counts before. */
export type LogAct = (act: Act) => Promise<void>

const pem = (der: Uint8Array) => encodePem('CERTIFICATE', der)

/**
 * Opens `ca/` in the data directory, making root and issuing CA where there are none, and finishing
 * what a crash cut off. Throws KeyError (`ca.waiting` where a CA above us has yet to sign), CaError.
 */
export async function openAuthority(
  config: Config,
  now: () => number,
  log: LogAct,
): Promise<Authority> {
  const room = openRoom(config, `gateway|${config.gateway}`, { now })
  try {
    const state = readState(room.directory)
    const waiting = state !== undefined && state.requested !== null && state.issuers.length === 0
    if (!waiting) await initCa(room)
    await activateDue(room)
    await tell(room, log)
    return new NodeAuthority(room, config.data, log)
  } catch (error) {
    room[Symbol.dispose]()
    throw error
  }
}

/** Appends what the log has not heard, then strikes it off: a crash in between tells it twice, never not. */
async function tell(room: CaRoom, log: LogAct): Promise<void> {
  const acts = readState(room.directory)?.acts ?? []
  if (acts.length === 0) return
  for (const each of acts) await log(each)
  strikeOff(room, new Set(acts.map(({ id }) => id)))
}

/** A view of the state, opened: keys, certificates, and what follows from them. */
interface Opened {
  readonly issuers: Issuers
  readonly rootPem: string
  readonly rootSha256: string
  readonly clientAuthorities: readonly string[]
  readonly crosses: readonly string[]
  readonly warnings: readonly string[]
}

class NodeAuthority implements Authority {
  readonly #room: CaRoom
  readonly #data: string
  readonly #log: LogAct
  #opened: Opened
  #stamp: string

  constructor(room: CaRoom, data: string, log: LogAct) {
    this.#room = room
    this.#data = data
    this.#log = log
    this.#stamp = stampOf(room)
    this.#opened = this.#open()
  }
  get issuers(): Issuers {
    return this.#opened.issuers
  }
  get rootPem(): string {
    return this.#opened.rootPem
  }
  get rootSha256(): string {
    return this.#opened.rootSha256
  }
  get clientAuthorities(): readonly string[] {
    return this.#opened.clientAuthorities
  }
  get crosses(): readonly string[] {
    return this.#opened.crosses
  }
  get warnings(): readonly string[] {
    return this.#opened.warnings
  }

  async refresh(): Promise<boolean> {
    const due = (readState(this.#room.directory)?.issuers ?? []).some(
      ({ state, active_from: from }) => state === 'next' && (from ?? Infinity) <= this.#room.now(),
    )
    if (due) await activateDue(this.#room)
    const stamp = stampOf(this.#room)
    if (stamp === this.#stamp) return false
    await tell(this.#room, this.#log)
    this.#opened = this.#open()
    this.#stamp = stampOf(this.#room)
    return true
  }

  #open(): Opened {
    const state = readState(this.#room.directory)
    const opened = openState(this.#room, state)
    replaceFile(join(this.#data, 'ca-root.pem'), opened.rootPem, 0o644)
    replaceFile(join(this.#data, 'ca-root.sha256'), `${opened.rootSha256}\n`, 0o644)
    return opened
  }

  [Symbol.dispose](): void {
    this.#room[Symbol.dispose]()
  }
}

/** Changes with every commit: a rename gives the name another file. */
function stampOf(room: CaRoom): string {
  const { ino, mtimeMs, size } = statSync(join(room.directory, STATE_FILE))
  return `${ino} ${mtimeMs} ${size}`
}

function openState(room: CaRoom, state: CaState | undefined): Opened {
  const active = state?.issuers.find((each) => each.state === 'active')
  const [root] = state?.roots ?? []
  if (state === undefined || active === undefined || root === undefined)
    throw new KeyError(
      'ca.waiting',
      'the issuing CA waits for its certificate from a CA above; bring it with: sallyport ca import --chain FILE',
    )
  const signer = signerAt(room, active.key, readDer(room, active.certificate))
  if (signer === undefined)
    throw new KeyError('ca.state', `the key of ${active.certificate} is not on this node`)
  const source = (each: IssuingEntry): IssuerSource => {
    const own = signerAt(room, each.key, readDer(room, each.certificate))
    const above = each.above.map((name) => readDer(room, name))
    const certificate = readDer(room, each.certificate)
    return { certificate, above, ...(own === undefined ? {} : { signer: own }) }
  }
  const others = (kind: IssuingEntry['state']) =>
    state.issuers.filter((each) => each.state === kind).map(source)
  const crosses = state.crosses.map((name) => readDer(room, name))
  const issuers = openIssuers({
    roots: state.roots.map(({ certificate }) => readDer(room, certificate)),
    active: { ...source(active), signer },
    next: others('next'),
    retired: others('retired'),
    crosses,
  })
  const rootDer = readDer(room, root.certificate)
  return {
    issuers,
    rootPem: pem(rootDer),
    rootSha256: createHash('sha256').update(rootDer).digest('hex'),
    clientAuthorities: [...issuers.all, ...issuers.roots].map((each) => pem(each.certificate)),
    crosses: crosses.map(pem),
    warnings: warningsOf(room, state),
  }
}

/** A fresh certificate for the port, recorded and logged like any other, and when to replace it. */
export async function edgeCertificate(
  config: Config,
  authority: Authority,
  store: CaStore,
  log: CaLog,
  now: number,
): Promise<{ readonly certificate: EdgeCertificate; readonly renewAt: number }> {
  const key: KeyObject = keyFile(join(config.data, 'keys'), 'gateway', 'p256')
  const { dns, ip } = namesOf(config)
  const issued = await issueServer(
    {
      tenant: config.tenant,
      gateway: config.gateway,
      dnsNames: dns,
      ipAddresses: ip,
      publicKey: new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' })),
      issuers: authority.issuers,
      now: instant(now),
      random,
    },
    { store, log },
  )
  return {
    certificate: {
      chain: [...issued.chain.map(pem), ...authority.crosses].join(''),
      key: key.export({ type: 'pkcs8', format: 'pem' }),
      clientAuthorities: authority.clientAuthorities,
    },
    renewAt: now + Math.floor(((issued.row.notAfter - now) * 2) / 3),
  }
}
