/** Labels (RFC 7030 3.2.2): a profile under a name, and what its clients need done differently. */
import type { EstProfileName } from './profile.ts'

export interface EstLabel {
  /** The path segment; `device` also answers without one. */
  readonly name: string
  readonly profile: EstProfileName
  /** `none`: bodies on one line without a line end, for clients that refuse inner ones. Default `lines`. */
  readonly wrap?: 'lines' | 'none' | undefined
  /** `ignore`: what a first request says of names is dropped, not compared. Default `strict`. */
  readonly names?: 'strict' | 'ignore' | undefined
  /** `copy`: a renewal without a SAN means that of the certificate renewed. Default `required`. */
  readonly san?: 'required' | 'copy' | undefined
  /** `required`: every CSR must carry the connection's binding. Default: the server's own setting. */
  readonly linking?: Linking | undefined
  /** `template`: RFC 9908's template beside the list; `none`: 204. Default `list`. */
  readonly csrattrs?: 'list' | 'template' | 'none' | undefined
}
export type Linking = 'required' | 'optional'

/** What is served when nothing else is said. */
export const DEVICE_LABEL: EstLabel = { name: 'device', profile: 'device' }
