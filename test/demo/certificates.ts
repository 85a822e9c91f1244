/** Small authorities for what is not Sallyport's: a plant's syslog receiver, a gateway that tests play. */
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
  cryptoProvider,
  type Extension,
  type X509Certificate,
} from '@peculiar/x509'

export interface ReceiverFiles {
  readonly ca: string
  readonly serverCert: string
  readonly serverKey: string
  readonly clientCert: string
  readonly clientKey: string
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const DAY_MS = 86_400_000

export interface Pair {
  readonly certificate: X509Certificate
  readonly keys: webcrypto.CryptoKeyPair
}

/** A root of its own. */
export async function makeRoot(name: string): Promise<Pair> {
  return issue(name, undefined, [
    new BasicConstraintsExtension(true, 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ])
}

/** A certificate that serves under these DNS names and addresses. */
export async function makeServer(root: Pair, names: readonly string[]): Promise<Pair> {
  return issue(names[0] ?? 'server', root, [
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
    new SubjectAlternativeNameExtension(
      names.map((value) => ({ type: isIP(value) === 0 ? 'dns' : 'ip', value })),
    ),
  ])
}

/** Writes a root, the receiver's certificate (name `siem.plant.test`) and the gateway's as its client. */
export async function makeReceiverFiles(directory: string): Promise<ReceiverFiles> {
  const root = await makeRoot('plant siem root')
  const server = await makeServer(root, ['siem.plant.test'])
  const client = await issue('sallyport-gateway', root, [
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]),
  ])
  const put = (name: string, text: string): string => {
    const path = join(directory, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  return {
    ca: put('siem-root.pem', `${root.certificate.toString('pem')}\n`),
    serverCert: put('siem-server.pem', `${server.certificate.toString('pem')}\n`),
    serverKey: put('siem-server.key', await keyPem(server.keys.privateKey)),
    clientCert: put('siem-client.pem', `${client.certificate.toString('pem')}\n`),
    clientKey: put('siem-client.key', await keyPem(client.keys.privateKey)),
  }
}

async function issue(
  name: string,
  issuer: Pair | undefined,
  extensions: Extension[],
): Promise<Pair> {
  cryptoProvider.set(webcrypto as never)
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const now = Date.now()
  const certificate = await X509CertificateGenerator.create({
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(15))).toString('hex'),
    subject: `CN=${name}`,
    issuer: issuer?.certificate.subject ?? `CN=${name}`,
    notBefore: new Date(now - 300_000),
    notAfter: new Date(now + DAY_MS),
    publicKey: keys.publicKey,
    signingKey: issuer?.keys.privateKey ?? keys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      ...extensions,
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(issuer === undefined
        ? []
        : [await AuthorityKeyIdentifierExtension.create(issuer.keys.publicKey)]),
    ],
  })
  return { certificate, keys }
}

/** PKCS#8, PEM. */
export async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64')
  const lines = der.match(/.{1,64}/g) ?? []
  return `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`
}
