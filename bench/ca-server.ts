/**
 * The served half of `bench -- ca`: the gateway's own port, EST handler and SQLite store in a process
 * of their own, so that its CPU time is the server's alone. ALPN `sallyport/1` is a bare handshake.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodePem, est, instant, issueServer, newToken, type EstOptions } from '#ca'
import { SqliteCaStore } from '../gateway/store/sqlite/ca.ts'
import { SqliteThread } from '../gateway/store/sqlite/thread.ts'
import { Admission } from '../gateway/listen/admission.ts'
import { createEdge } from '../gateway/listen/edge.ts'
import { estHandler } from '../gateway/listen/est.ts'
import { newBody, newHouse, newKey, random, served, signedFor, spkiOf, TENANT } from './ca-work.ts'

/** What the load asks for; each is answered with one message. */
export type Ask =
  | { readonly ask: 'ready' }
  /** CPU time of this process so far, us, all threads. */
  | { readonly ask: 'cpu' }
  /** That many tokens, each for a device of its own. */
  | { readonly ask: 'tokens'; readonly prefix: string; readonly count: number }
  /** CPU time of that many bodies, without store and connection, us. */
  | { readonly ask: 'bodies'; readonly count: number }
  | { readonly ask: 'end' }

export interface Ready {
  readonly port: number
  readonly root: string
  /** What every client presents. */
  readonly client: { readonly device: string; readonly key: string; readonly chain: string }
}

const pem = (der: Uint8Array) => encodePem('CERTIFICATE', der)
const keyPem = (key: ReturnType<typeof newKey>) => key.export({ type: 'pkcs8', format: 'pem' })
const CLIENT = 'client'

async function serve(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  const thread = await SqliteThread.open(join(directory, 'store.sqlite'))
  const store = new SqliteCaStore(thread)
  const house = await newHouse()
  const now = () => instant(Date.now())
  const log = async () => undefined
  const options: EstOptions = {
    tenant: TENANT,
    store,
    issuers: () => house.issuers,
    devices: { find: async (id) => ({ id, zone: 'hall-a', state: 'pending' }) },
    decide: async () => ({ allow: true, denials: [], decision_id: 'd_bench', obligations: {} }),
    log,
    now,
    random,
    failed: (error) => console.error(error),
  }
  const handler = estHandler(est(options), {
    report: (error) => console.error(error),
    proven: () => {},
  })
  const serverKey = newKey()
  const { chain } = await issueServer(
    {
      tenant: TENANT,
      gateway: 'bench',
      dnsNames: ['localhost'],
      ipAddresses: ['127.0.0.1'],
      publicKey: spkiOf(serverKey),
      issuers: house.issuers,
      now: now(),
      random,
    },
    { store, log },
  )
  const edge = createEdge({
    certificate: {
      chain: chain.map(pem).join(''),
      key: keyPem(serverKey),
      clientAuthorities: [pem(house.issuing), pem(house.root)],
    },
    onTunnel: (socket) => socket.end(),
    onRequest: handler,
    onUpgrade: (_request, socket) => socket.destroy(),
    onFault: (code) => console.error(`bench -- ca: the server saw ${code}`),
    // The load comes from one address, and faster than one address may.
    admission: new Admission({ perSource: 0, open: 0, strangers: 0, strangersOpen: 0 }, 0),
  })
  const { port } = await edge.listen('127.0.0.1', 0)
  const clientKey = newKey()
  const client = await signedFor(CLIENT, clientKey, house, { store, log })
  const ready: Ready = {
    port,
    root: pem(house.root),
    client: { device: CLIENT, key: keyPem(clientKey), chain: pem(client) + pem(house.issuing) },
  }
  const bodies = Array.from({ length: 64 }, (_, at) => ({
    device: `d${at}`,
    body: newBody(`d${at}`),
  }))

  async function reply(ask: Ask): Promise<unknown> {
    switch (ask.ask) {
      case 'ready':
        return ready
      case 'cpu':
        return cpu()
      case 'tokens': {
        const made = Array.from({ length: ask.count }, async (_, at) => {
          const device = `${ask.prefix}${at}`
          const life = { tenant: TENANT, device, lifetimeSeconds: 3_600, now: now(), random }
          return { device, token: (await newToken(life, store)).text }
        })
        return await Promise.all(made)
      }
      case 'bodies': {
        const before = cpu()
        for (let at = 0; at < ask.count; at++) {
          const { device, body } = bodies[at % bodies.length] ?? {
            device: '',
            body: new Uint8Array(),
          }
          await served(device, body, house)
        }
        return cpu() - before
      }
      case 'end':
        await edge[Symbol.asyncDispose]()
        await thread[Symbol.asyncDispose]()
        rmSync(directory, { recursive: true })
        return undefined
    }
  }
  process.on('message', (ask: Ask) => {
    void reply(ask).then(
      (value) => {
        process.send?.({ value })
        if (ask.ask === 'end') process.exit(0)
      },
      (error: unknown) => process.send?.({ error: String(error) }),
    )
  })
}

function cpu(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

await serve()
