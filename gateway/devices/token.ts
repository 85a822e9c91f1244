/** A device's one-time token, and the two ways to use it: the line that installs, and the command that enrols. */
import type { DeviceToken } from '#api'
import { instant, newToken, type CaStore } from '#ca'
import { createHash, randomBytes } from 'node:crypto'
import { installLine, pinning, type AgentBuild } from './onboarding.ts'

/** How long a first use is possible. */
export const TOKEN_LIFETIME_S = 3600

export interface TokenRoom {
  readonly tenant: string
  readonly store: Pick<CaStore, 'addToken'>
  /** `https://host:port` that the device dials. */
  readonly origin: string
  /** Of the root that devices pin today. */
  readonly caSha256: () => string
  /** Words of the keys that this site signs updates of the agent with; none: devices pin none by the line. */
  readonly updateKeys: readonly string[]
  /** What a device can fetch from here. */
  readonly build: Pick<AgentBuild, 'script'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

/** Makes a token for one device, good for an hour; its text is given here and kept nowhere. */
export async function deviceToken(room: TokenRoom, device: string): Promise<DeviceToken> {
  const { text, row } = await newToken(
    {
      tenant: room.tenant,
      device,
      lifetimeSeconds: TOKEN_LIFETIME_S,
      now: instant(room.now()),
      random: (bytes) => randomBytes(bytes),
    },
    room.store,
  )
  const { tenant, origin, build, updateKeys } = room
  const pin = room.caSha256()
  const script = await build.script()
  return {
    device,
    token: text,
    expires_at: Math.floor(row.expiresAt / 1000),
    ca_sha256: pin,
    install_command:
      script === undefined
        ? null
        : installLine({
            origin,
            device,
            tenant,
            caSha256: pin,
            token: text,
            scriptSha256: createHash('sha256').update(script).digest('hex'),
            updateKeys,
          }),
    enrol_command: [
      'sallyport agent enroll',
      `--gateway ${origin}`,
      `--device ${device}`,
      `--tenant ${tenant}`,
      `--ca-sha256 ${pin}`,
      ...pinning(updateKeys),
      '--token-file TOKEN_FILE',
      '--data DIRECTORY',
    ].join(' '),
  }
}
