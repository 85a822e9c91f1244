/**
 * Step 1: a device is created, and its one-time token enrols it over EST: press-07 by the agent,
 * press-08 by nothing but curl and openssl.
 */
import { readFileSync } from 'node:fs'
import type { Device, DeviceToken } from '#api'
import { adoptIdentity, enrolByAgent, type AgentFiles } from '../agents.ts'
import { expect } from '../failure.ts'
import { enrolAgain, enrolByCurl, missingPrograms } from '../foreign-est.ts'
import type { GatewayNode } from '../gateway-node.ts'
import type { Found, Stage } from '../stage.ts'

export interface Enrolled extends Found {
  readonly press07: AgentFiles
  readonly press08: AgentFiles
}

interface Added {
  readonly device: Device
  readonly token: DeviceToken
}

const TENANT = 'main.sallyport.internal'

export async function enrol(stage: Stage, gateway: GatewayNode): Promise<Enrolled> {
  const first = (await stage.sallyport.ask('admin', 'device', 'add', 'press-07')) as Added
  const second = (await stage.sallyport.ask('admin', 'device', 'add', 'press-08')) as Added
  const press07 = await enrolByAgent(stage, first.token)
  const { files: press08, how } = await enrolSecond(stage, gateway, second.token)
  const serials = await Promise.all(['press-07', 'press-08'].map(async (id) => serialOf(stage, id)))
  return {
    press07,
    press08,
    found: [
      `press-07 by its agent: certificate ${serials[0]}`,
      `press-08 by ${how}: certificate ${serials[1]}`,
    ],
  }
}

async function enrolSecond(
  stage: Stage,
  gateway: GatewayNode,
  token: DeviceToken,
): Promise<{ files: AgentFiles; how: string }> {
  const missing = await missingPrograms()
  if (missing.length > 0) {
    const why = `${missing.join(' and ')} not installed here`
    expect(process.env['CI'] !== 'true', 'curl and openssl, which CI installs', why)
    const files = await enrolByAgent(stage, token)
    return { files, how: `its agent, because of ${why}` }
  }
  const directory = stage.folder('foreign')
  const options = {
    directory,
    origin: stage.origin,
    rootSha256: gateway.caSha256,
    tenant: TENANT,
    device: 'press-08',
    token: token.token,
  }
  const identity = await enrolByCurl(options)
  const status = await enrolAgain(options)
  expect(
    status === '401' || status === '403',
    'the spent token to be refused for another key (401 or 403)',
    status,
  )
  const files = await adoptIdentity(stage, gateway, 'press-08', {
    key: readFileSync(identity.key, 'utf8'),
    certificate: readFileSync(identity.certificate, 'utf8'),
    authorities: readFileSync(identity.authorities, 'utf8'),
    root: readFileSync(identity.root, 'utf8'),
  })
  return { files, how: `curl and openssl (its token, used again for another key: ${status})` }
}

async function serialOf(stage: Stage, id: string): Promise<string> {
  const device = (await stage.sallyport.ask('admin', 'device', 'show', id)) as Device
  expect(device.certificate !== null, `${id} to have a certificate`, device)
  return device.certificate.serial
}
