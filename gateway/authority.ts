/** The node's own CA: made at first start, opened ever after; and the certificate of the one port. */
import {
  createHash,
  createPublicKey,
  randomBytes,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isIP } from 'node:net'
import { createAuthority, encodePem, instant, issueServer, openIssuers, softwareSigner } from '#ca'
import type { CaLog, CaStore, Issuers } from '#ca'
import type { Config } from './config.ts'
import { splitHostPort } from './config.ts'
import { keyFile } from './keys/file.ts'
import type { EdgeCertificate } from './listen/edge.ts'

export interface Authority {
  readonly issuers: Issuers
  /** PEM of the root: what devices and people pin. */
  readonly rootPem: string
  /** SHA-256 of the root's DER, hex. */
  readonly rootSha256: string
  readonly issuingPem: string
}

const pem = (der: Uint8Array) => encodePem('CERTIFICATE', der)
const random = (bytes: number) => randomBytes(bytes)

/** Opens `ca/` in the data directory, making root and issuing CA where there are none. */
export async function openAuthority(config: Config, now: number): Promise<Authority> {
  const directory = join(config.data, 'ca')
  const root = softwareSigner(keyFile(directory, 'root', 'p384'))
  const issuing = softwareSigner(keyFile(directory, 'issuing', 'p256'))
  const rootFile = join(directory, 'root.crt')
  const issuingFile = join(directory, 'issuing.crt')
  if (!existsSync(issuingFile)) {
    const made = await createAuthority({
      tenant: config.tenant,
      root,
      issuing,
      now: instant(now),
      random,
    })
    writeFileSync(rootFile, pem(made.root))
    writeFileSync(issuingFile, pem(made.issuing))
  }
  const rootDer = new Uint8Array(new X509Certificate(readFileSync(rootFile)).raw)
  const issuingDer = new Uint8Array(new X509Certificate(readFileSync(issuingFile)).raw)
  const rootSha256 = createHash('sha256').update(rootDer).digest('hex')
  writeFileSync(join(config.data, 'ca-root.pem'), pem(rootDer))
  writeFileSync(join(config.data, 'ca-root.sha256'), `${rootSha256}\n`)
  return {
    issuers: openIssuers({
      roots: [rootDer],
      active: { certificate: issuingDer, signer: issuing },
    }),
    rootPem: pem(rootDer),
    rootSha256,
    issuingPem: pem(issuingDer),
  }
}

/** The names people, devices and browsers use for this gateway. */
function namesOf(config: Config): { readonly dns: string[]; readonly ip: string[] } {
  const { host } = splitHostPort(config.listen)
  const all = [config.public_host, 'localhost', '127.0.0.1', '::1', host, ...config.names]
  const named = new Set(all.filter((name) => name !== '0.0.0.0' && name !== '::'))
  return {
    dns: [...[...named].filter((name) => isIP(name) === 0), `*.${config.apps_domain}`],
    ip: [...named].filter((name) => isIP(name) !== 0),
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
      chain: issued.chain.map(pem).join(''),
      key: key.export({ type: 'pkcs8', format: 'pem' }),
      clientAuthorities: [authority.issuingPem, authority.rootPem],
    },
    renewAt: now + Math.floor(((issued.row.notAfter - now) * 2) / 3),
  }
}
