/** A gateway's front door with nothing behind it but identity: real TLS, real provider, real store. */
import 'reflect-metadata'
import { createHash, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  type X509Certificate,
} from '@peculiar/x509'
import { importJWK, SignJWT } from 'jose'
import { Certificate, ContentInfo, EncapsulatedContentInfo, SignedData } from 'pkijs'
import type { PrivateKey } from '../../../cli/login/credentials.ts'
import { deviceLogin, type Credentials } from '../../../cli/login/index.ts'
import {
  openIdentity,
  type Identity,
  type IdentityChange,
  type IdentityEvent,
  type AuthRefusal,
  type AuthRequest,
  type IdentityOptions,
  type Subject,
} from '../../../gateway/identity/index.ts'
import { SqliteIdpStore } from '../../../gateway/store/sqlite/idps.ts'
import { SqliteIdentityStore, SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteInvitationStore } from '../../../gateway/store/sqlite/invitations.ts'
import { SqlitePasskeyStore } from '../../../gateway/store/sqlite/passkeys.ts'
import { SqliteTotpStore } from '../../../gateway/store/sqlite/totp.ts'
import { SqliteServiceStore } from '../../../gateway/store/sqlite/services.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { approveDevice, openBrowser, type Page } from '../../support/browser.ts'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

export interface Certificates {
  /** PEM of the root. */
  readonly anchor: string
  /** Its SHA-256, hex. */
  readonly pin: string
  /** The root as EST gives it (RFC 7030 4.1.3). */
  readonly certsOnly: string
  readonly cert: string
  readonly key: string
}

/** A throw-away CA and a certificate for localhost and 127.0.0.1. */
export async function makeCertificates(): Promise<Certificates> {
  const make = async (): Promise<{ publicKey: CryptoKey; privateKey: CryptoKey }> =>
    crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const [rootKeys, keys] = await Promise.all([make(), make()])
  const notBefore = new Date(Date.now() - 60_000)
  const notAfter = new Date(Date.now() + 3_600_000)
  const dates = { notBefore, notAfter, signingAlgorithm: ALGORITHM }
  const root = await X509CertificateGenerator.createSelfSigned({
    ...dates,
    serialNumber: '01',
    // Roots of one name and different keys cannot stand beside each other in one trust store.
    name: `CN=throw-away root ${randomUUID()}`,
    keys: rootKeys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign, true),
    ],
  })
  const leaf: X509Certificate = await X509CertificateGenerator.create({
    ...dates,
    serialNumber: '02',
    subject: 'CN=localhost',
    issuer: root.subject,
    publicKey: keys.publicKey,
    signingKey: rootKeys.privateKey,
    extensions: [
      new SubjectAlternativeNameExtension([
        { type: 'dns', value: 'localhost' },
        { type: 'ip', value: '127.0.0.1' },
      ]),
    ],
  })
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey))
  const lines = pkcs8.toString('base64').match(/.{1,64}/g) ?? []
  const key = `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`
  const der = Buffer.from(root.rawData)
  const pin = createHash('sha256').update(der).digest('hex')
  const pem = { anchor: root.toString('pem'), cert: leaf.toString('pem'), key }
  return { ...pem, pin, certsOnly: encodeCertsOnly(der) }
}

function encodeCertsOnly(der: Buffer): string {
  const signed = new SignedData({
    version: 1,
    encapContentInfo: new EncapsulatedContentInfo({ eContentType: ContentInfo.DATA }),
    certificates: [Certificate.fromBER(der)],
  })
  const content = signed.toSchema(true)
  const info = new ContentInfo({ contentType: ContentInfo.SIGNED_DATA, content })
  return Buffer.from(info.toSchema().toBER()).toString('base64')
}

export interface House extends AsyncDisposable {
  readonly origin: string
  readonly port: number
  readonly anchor: string
  readonly pin: string
  readonly directory: string
  identity: Identity
  readonly events: IdentityEvent[]
  readonly changes: IdentityChange[]
  readonly failures: unknown[]
  /** Makes the log refuse from now on, or no more. */
  breakLog(broken: boolean): void
  /** Moves the clock that identity reads. */
  advance(ms: number): void
  now(): number
  /** Stops identity and its store and opens both again from what is on disk, as after a crash. */
  restart(): Promise<void>
}

/** Opens everything on a free loopback port. `/api/v1/me` answers what `authenticate` says. */
export async function openHouse(
  options: Partial<Pick<IdentityOptions, 'clients' | 'lifetimes'>> = {},
): Promise<House> {
  const certificates = await makeCertificates()
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-identity-'))
  const events: IdentityEvent[] = []
  const changes: IdentityChange[] = []
  const failures: unknown[] = []
  let offset = 0
  let broken = false
  const now = (): number => Date.now() + offset

  // As the gateway does it: TLS is ended by one server, HTTP is spoken by another that never listens.
  const http = createServer((request, response) => {
    if (request.url === '/.well-known/est/cacerts') {
      response.setHeader('Content-Type', 'application/pkcs7-mime; smime-type=certs-only')
      response.setHeader('Content-Transfer-Encoding', 'base64')
      return void response.end(certificates.certsOnly)
    }
    if (request.url === '/oidc' || request.url?.startsWith('/oidc/') === true)
      return house.identity.handle(request, response)
    const { method = 'GET', url = '/', headers } = request
    house.identity
      .authenticate({ method, url, headers }, now())
      .then((answer) => {
        const refused = 'refused' in answer
        response.statusCode = refused ? answer.status : 200
        if (refused && answer.wwwAuthenticate !== null)
          response.setHeader('WWW-Authenticate', answer.wwwAuthenticate)
        response.setHeader('Content-Type', 'application/json')
        response.end(JSON.stringify(answer))
      })
      .catch(() => response.destroy())
  })
  const { cert, key, anchor, pin } = certificates
  const tls = createTlsServer(
    { cert, key, requestCert: true, rejectUnauthorized: false },
    (socket) => http.emit('connection', socket),
  )
  await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve))
  const address = tls.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const origin = `https://localhost:${address.port}`

  const open = async (): Promise<[SqliteThread, Identity]> => {
    const thread = await SqliteThread.open(join(directory, 'store.sqlite'))
    const identity = await openIdentity({
      lifetimes: { poll: 0.2 },
      ...options,
      origin,
      directory,
      store: new SqliteIdentityStore(thread),
      oidcStore: new SqliteOidcStore(thread),
      idpStore: new SqliteIdpStore(thread),
      passkeyStore: new SqlitePasskeyStore(thread),
      totpStore: new SqliteTotpStore(thread),
      invitationStore: new SqliteInvitationStore(thread),
      serviceStore: new SqliteServiceStore(thread),
      async log(event) {
        if (broken) throw new Error('the log is full')
        events.push(event)
      },
      now,
      report: (error) => failures.push(error),
    })
    identity.onChange((change) => changes.push(change))
    return [thread, identity]
  }
  let [thread, identity] = await open()
  const house: House = {
    origin,
    port: address.port,
    anchor,
    pin,
    directory,
    identity,
    events,
    changes,
    failures,
    breakLog: (value) => (broken = value),
    advance: (ms) => (offset += ms),
    now,
    async restart() {
      await house.identity[Symbol.asyncDispose]()
      await thread[Symbol.asyncDispose]()
      ;[thread, identity] = await open()
      house.identity = identity
    },
    async [Symbol.asyncDispose]() {
      http.closeAllConnections()
      await new Promise((resolve) => tls.close(resolve))
      await house.identity[Symbol.asyncDispose]()
      await thread[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
  return house
}

export const PASSWORD = 'correct horse battery staple'
/** The person at the console of the gateway. */
export const SYSTEM = { id: 'system', source: null } as const

/** A vendor account `<name>@acme.example`, with the password above. */
export async function addVendor(house: House, name = 'vera'): Promise<string> {
  const account = await house.identity.accounts.create(
    {
      email: `${name}@acme.example`,
      name: 'Vera Vendor',
      party: 'vendor',
      vendor: 'acme',
      roles: ['vendor'],
      groups: ['press-service'],
      password: PASSWORD,
    },
    SYSTEM,
  )
  return account.sub
}

/** Signs in as `name` by the device flow in a new browser; gives what the CLI would keep. */
export async function signIn(house: House, name = 'vera'): Promise<Credentials> {
  await using browser = openBrowser(house.anchor)
  const failed = new AbortController()
  let page: Promise<Page> | undefined
  const login = deviceLogin({
    gateway: house.origin,
    trust: { anchor: house.anchor },
    signal: failed.signal,
    onPrompt({ completeUrl: url }) {
      page = approveDevice(browser, { url, email: `${name}@acme.example`, password: PASSWORD })
      page.catch(() => failed.abort())
    },
  })
  const [outcome] = await Promise.allSettled([login])
  await page
  if (outcome.status === 'rejected') throw outcome.reason
  return outcome.value
}

/** The claims and header of a proof as RFC 9449 asks for it; a test bends what it is about. */
export interface Bent {
  readonly claims?: Readonly<Record<string, unknown>>
  readonly header?: Readonly<Record<string, unknown>>
  /** Signs instead of the credentials' key. */
  readonly key?: PrivateKey
}

/** A proof for GET of `/api/v1/me`. */
export async function makeProof(
  house: House,
  credentials: Credentials,
  bent: Bent = {},
): Promise<string> {
  const { d: _, ...shown } = bent.key ?? credentials.key
  const ath = createHash('sha256').update(credentials.accessToken).digest('base64url')
  return new SignJWT({
    jti: randomUUID(),
    htm: 'GET',
    htu: `${house.origin}/api/v1/me`,
    iat: Math.floor(house.now() / 1000),
    ath,
    ...bent.claims,
  })
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: shown, ...bent.header })
    .sign(await importJWK({ ...(bent.key ?? credentials.key) }, 'ES256'))
}

/** Authenticates GET of `/api/v1/me` with these headers. */
export async function authenticate(
  house: House,
  headers: Readonly<Record<string, string>>,
  request: Partial<AuthRequest> = {},
): Promise<Subject | AuthRefusal> {
  const asked = { method: 'GET', url: '/api/v1/me', headers, ...request }
  return house.identity.authenticate(asked, house.now())
}
