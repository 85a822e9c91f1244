/** Where a node keeps what several gateways share: the part of its configuration that says so, and what may not be said. */
import { Type, type Static } from 'typebox'

const File = Type.Optional(Type.String({ minLength: 1 }))

export const StoreSettings = Type.Object(
  {
    /** Grants, reviews of broken seals and the index of sessions, for every gateway that names it. */
    redis: Type.Object(
      {
        host: Type.String({ minLength: 1, maxLength: 253 }),
        port: Type.Integer({ minimum: 1, maximum: 65_535 }),
        username: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
        password_file: File,
        /** PEM of the authority that signed the server's certificate: the connection is TLS then, and elsewhere than on this machine it must be. */
        ca_file: File,
        cert_file: File,
        key_file: File,
        servername: Type.Optional(Type.String({ minLength: 1, maxLength: 253 })),
        /** Replicas that must have a write before it counts; default 0. */
        replicas: Type.Optional(Type.Integer({ minimum: 0, maximum: 8 })),
      },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false },
)

export type RedisSettings = Static<typeof StoreSettings>['redis']

/** Why these settings cannot be used, or undefined. `onThisMachine` is whether the host is loopback. */
export function storeObjection(
  { ca_file, cert_file, key_file, servername, username, password_file }: RedisSettings,
  onThisMachine: boolean,
): string | undefined {
  if (ca_file === undefined && !onThisMachine)
    return 'what lets people in leaves this machine over TLS alone: name the ca_file of Redis'
  if ((cert_file === undefined) !== (key_file === undefined))
    return 'cert_file and key_file come together'
  if (ca_file === undefined && (cert_file !== undefined || servername !== undefined))
    return 'cert_file and servername are of a connection with a ca_file'
  if (username !== undefined && password_file === undefined)
    return 'a username comes with a password_file'
  return undefined
}
