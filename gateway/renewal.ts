/** The node's own certificate: renewed in time, and when the CA has changed. */
import { edgeCertificate } from './authority.ts'
import type { Config } from './config.ts'
import type { EstSetup } from './enrolment.ts'
import { now, type Foundation, type Report } from './foundation.ts'
import type { Edge, EdgeCertificate } from './listen/edge.ts'

const RENEWAL_CHECK_MS = 3_600_000
/** How soon a running node takes over what `sallyport ca` changed. */
const CA_CHECK_MS = 2_000

/** The handshake asks for makers' certificates too; only EST, never a tunnel, takes them. */
export function alsoAsking(
  certificate: EdgeCertificate,
  { clientAuthorities }: EstSetup,
): EdgeCertificate {
  const all = [...certificate.clientAuthorities, ...clientAuthorities]
  return { ...certificate, clientAuthorities: all }
}

/** Replaces the port's certificate at two thirds of its life; tries again each hour where that fails. */
export function renewing(
  config: Config,
  { authority, caStore, caLog }: Foundation,
  edge: Edge,
  setup: EstSetup,
  renewAt: number,
  report: Report,
): Disposable {
  let due = renewAt
  let trying = false
  const renew = async (changed: boolean): Promise<void> => {
    if (trying || (!changed && now() < due)) return
    trying = true
    try {
      const next = await edgeCertificate(config, authority, caStore, caLog, now())
      edge.renew(alsoAsking(next.certificate, setup))
      due = next.renewAt
    } catch (error) {
      // Asked for by a change of CA, it is tried again with the hourly look.
      if (changed) due = 0
      report(error, 'the certificate of the port could not be renewed')
    } finally {
      trying = false
    }
  }
  const timer = setInterval(() => void renew(false), RENEWAL_CHECK_MS)
  const watch = setInterval(() => {
    authority.refresh().then(
      (changed) => void (changed && renew(true)),
      (error: unknown) =>
        report(error, 'the CA as it was changed cannot be used; the old one goes on'),
    )
  }, CA_CHECK_MS)
  for (const each of [timer, watch]) each.unref()
  return {
    [Symbol.dispose]() {
      clearInterval(timer)
      clearInterval(watch)
    },
  }
}
