/** What the CA asks of policy, of the inventory and of the configuration, in their own words. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import {
  openAnchors,
  type CaDecision,
  type CaFacts,
  type Decide,
  type Devices,
  type EstLabel,
  type EstOptions,
  type Manufacturer,
} from '#ca'
import { ConfigError } from './config.ts'
import type { Decisions } from './decisions.ts'
import type { DeviceStore } from './devices/device.ts'
import { deviceLifetimeSeconds, type EstSettings } from './est-settings.ts'
import { plainAddress } from './facts.ts'
import { toldIn } from './zone.ts'

/** `device.enroll` and `device.renew`; policy can only shorten what the profile says. */
export function decideIssuance(decisions: Decisions): Decide {
  return (point, facts: CaFacts): Promise<CaDecision> => {
    const { device, enroll, renew } = facts
    const ip = plainAddress(facts.remote_address)
    const { id, zone, state, labels } = device
    const decision = decisions.ask(point, {
      request_id: facts.request_id,
      subject: { id, kind: 'device' },
      client: { ip, family: ip.includes(':') ? 6 : 4 },
      tls: { client: { version: facts.tls_version, cipher: null, group: null, pq: null } },
      device: { id, zone, state, ...(labels === undefined ? {} : { labels }) },
      enroll,
      renew,
    })
    return Promise.resolve({
      allow: decision.allow,
      denials: toldIn(zone, decision.denials, decisions),
      decision_id: decision.decision_id,
      revision: decision.revision,
      reasons: decision.reasons.map(({ code }) => code),
      obligations: { lifetimeSeconds: decision.obligations.max_duration_s },
    })
  }
}

/** What a PrintableString can hold, as a subject's serialNumber must (RFC 5280 A.1). */
const PRINTABLE = /^[A-Za-z0-9 '()+,\-./:=?]{1,64}$/

/** The inventory as the CA sees it: the label `serial` goes into the subject. */
export function inventory(devices: Pick<DeviceStore, 'find'>): Devices {
  return {
    async find(id) {
      const device = await devices.find(id)
      const serial = device?.labels['serial']
      if (device === undefined || serial === undefined || !PRINTABLE.test(serial)) return device
      return { ...device, serialNumber: serial }
    },
  }
}

/** A limit far above what a plant behind one address needs, far below what fills a log. */
const REQUESTS_PER_MINUTE = 6_000

export interface EstSetup {
  readonly options: Pick<
    EstOptions,
    'labels' | 'linking' | 'requestsPerMinute' | 'manufacturers' | 'deviceLifetimeSeconds'
  >
  /** PEM of every maker's roots: some clients present a certificate only when its issuer is asked for. */
  readonly clientAuthorities: readonly string[]
}

/** Reads what the settings name. Throws ConfigError `config.value` for a roots file that holds none. */
export function estSetup(settings: EstSettings = {}): EstSetup {
  const makers = (settings.manufacturers ?? []).map(openMaker)
  const own = (settings.labels ?? []).map((label): EstLabel => ({
    ...label,
    profile: label.profile ?? 'device',
  }))
  const device = own.some(({ name }) => name === 'device')
  return {
    options: {
      labels: device ? own : [{ name: 'device', profile: 'device' }, ...own],
      linking: settings.linking ?? 'optional',
      deviceLifetimeSeconds: deviceLifetimeSeconds(settings),
      requestsPerMinute: settings.requests_per_minute ?? REQUESTS_PER_MINUTE,
      manufacturers: () => makers.map(({ maker }) => maker),
    },
    clientAuthorities: makers.flatMap(({ roots }) => roots),
  }
}

type MakerSettings = NonNullable<EstSettings['manufacturers']>[number]
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

function openMaker(settings: MakerSettings): { maker: Manufacturer; roots: readonly string[] } {
  const { name, roots_file: file, serials_file: serials } = settings
  try {
    const roots: string[] = readFileSync(file, 'utf8').match(CERTIFICATE) ?? []
    if (roots.length === 0) throw new Error('it holds no certificate')
    const anchors = openAnchors(roots.map((pem) => new Uint8Array(new X509Certificate(pem).raw)))
    return { maker: { name, anchors, claim: (serial) => deviceOf(serials, serial) }, roots }
  } catch (cause) {
    const says = cause instanceof Error ? cause.message : String(cause)
    throw new ConfigError('config.value', file, `the roots of ${name} cannot be used: ${says}`, {
      cause,
    })
  }
}

/** The list is read anew each time: a first enrolment is rare, and a line added counts at once. */
async function deviceOf(file: string, serialNumber: string): Promise<string | undefined> {
  for (const line of (await readFile(file, 'utf8')).split('\n')) {
    const [, serial, device] = /^\s*([^#\s].*?)\s+(\S+)\s*$/.exec(line) ?? []
    if (serial === serialNumber) return device
  }
  return undefined
}
