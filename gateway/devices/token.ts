/** A device's one-time token, and the one line that uses it. */
import type { DeviceToken } from '#api'
import { instant, newToken, type CaStore } from '#ca'
import { randomBytes } from 'node:crypto'

/** How long a first use is possible. */
export const TOKEN_LIFETIME_S = 3600

export interface TokenRoom {
  readonly tenant: string
  readonly store: Pick<CaStore, 'addToken'>
  /** `https://host:port` that the device dials. */
  readonly origin: string
  /** Of the root that devices pin today. */
  readonly caSha256: () => string
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
  const pin = room.caSha256()
  return {
    device,
    token: text,
    expires_at: Math.floor(row.expiresAt / 1000),
    ca_sha256: pin,
    enrol_command: [
      'sallyport agent enroll',
      `--gateway ${room.origin}`,
      `--device ${device}`,
      `--tenant ${room.tenant}`,
      `--ca-sha256 ${pin}`,
      '--token-file TOKEN_FILE',
      '--data DIRECTORY',
    ].join(' '),
  }
}
