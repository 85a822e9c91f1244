/** The plant's own small authority for its syslog receiver; nothing of Sallyport's CA is involved. */
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import { writeFileSync } from 'node:fs'
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

interface Pair {
  readonly certificate: X509Certificate
  readonly keys: webcrypto.CryptoKeyPair
}

/** Writes a root, the receiver's certificate (name `siem.plant.test`) and the gateway's as its client. */
export async function makeReceiverFiles(directory: string): Promise<ReceiverFiles> {
  cryptoProvider.set(webcrypto as never)
  const root = await issue('plant siem root', undefined, [
    new BasicConstraintsExtension(true, 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ])
  const usage = new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true)
  const server = await issue('siem.plant.test', root, [
    usage,
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
    new SubjectAlternativeNameExtension([{ type: 'dns', value: 'siem.plant.test' }]),
  ])
  const client = await issue('sallyport-gateway', root, [
    usage,
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

async function issue(name: string, issuer: Pair | undefined, extensions: Extension[]): Promise<Pair> {
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
      ...(issuer === undefined ? [] : [await AuthorityKeyIdentifierExtension.create(issuer.keys.publicKey)]),
    ],
  })
  return { certificate, keys }
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64')
  const lines = der.match(/.{1,64}/g) ?? []
  return `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`
}
