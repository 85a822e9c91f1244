/** Ending a login where it lives: at the gateway, then here. */
import { tokenRevocation } from 'openid-client'
import { unreachable } from '../anchor.ts'
import { removeCredentials, type Credentials } from './credentials.ts'
import { discover } from './device.ts'
import { openPinnedHttp } from './tls.ts'

/**
 * Revokes the refresh token (RFC 7009): the gateway ends the login and cuts what runs under it. The file is
 * removed in any case; when the gateway could not be told, that is thrown afterwards (gateway.unreachable).
 */
export async function logout(directory: string, credentials: Credentials): Promise<void> {
  const { issuer, clientId, anchor, refreshToken, gateway } = credentials
  await using http = openPinnedHttp(anchor)
  try {
    const client = await discover(issuer, clientId, http)
    await tokenRevocation(client, refreshToken, { token_type_hint: 'refresh_token' })
  } catch (cause) {
    throw unreachable(new URL(gateway), cause)
  } finally {
    await removeCredentials(directory, gateway)
  }
}
