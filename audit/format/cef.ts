/** An OCSF body as ArcSight CEF 0, for receivers that know nothing else; the leaf's hash goes with it. design: audit.md section 1. */

interface Body {
  readonly time?: number
  readonly severity_id?: number
  readonly status_id?: number
  readonly message?: string
  readonly disposition_id?: number
  readonly actor?: { readonly user?: { readonly uid?: string; readonly name?: string } }
  readonly src_endpoint?: { readonly ip?: string; readonly port?: number }
  readonly dst_endpoint?: {
    readonly ip?: string
    readonly hostname?: string
    readonly port?: number
  }
  readonly metadata?: {
    readonly uid?: string
    readonly event_code?: string
    readonly sequence?: number
    readonly product?: { readonly version?: string }
  }
  readonly unmapped?: { readonly sallyport?: Readonly<Record<string, unknown>> }
}

/** What joins the event to the log. */
export interface Joined {
  readonly origin: string
  readonly leaf: string
  readonly cp: string | null
}

/** OCSF severity_id 1..6 -> CEF 0..10. */
const severities = [1, 1, 3, 5, 7, 9, 10] as const

/** In the header `|` and `\` are escaped, and a line end cannot be said at all. */
function header(value: string): string {
  return value.replace(/[\\|]/g, '\\$&').replace(/[\r\n]+/g, ' ')
}
/** In a value `=` and `\` are escaped, line ends are written out. */
function value(text: string): string {
  return text.replace(/[\\=]/g, '\\$&').replaceAll('\n', '\\n').replaceAll('\r', '\\r')
}

function text(of: unknown): string | undefined {
  if (of === undefined || of === null) return undefined
  return typeof of === 'string' ? of : JSON.stringify(of)
}

function fieldsOf(body: Body, joined: Joined): [string, unknown][] {
  const own = body.unmapped?.sallyport ?? {}
  const observed = own['observed'] as { readonly sha256?: string } | null | undefined
  const decisions = own['decisions'] as readonly { readonly id: string }[] | undefined
  const custom: [string, unknown][] = [
    ['session', own['session']],
    ['grant', own['grant']],
    ['decisions', decisions?.map(({ id }) => id).join(',')],
    ['leaf', joined.leaf],
    ['cp', joined.cp],
    ['origin', joined.origin],
    ['process sha256', observed?.sha256],
  ]
  return [
    ['rt', body.time],
    ['externalId', body.metadata?.uid],
    ['deviceExternalId', own['node']],
    ['cat', 'audit'],
    ['suser', body.actor?.user?.name ?? body.actor?.user?.uid],
    ['src', body.src_endpoint?.ip],
    ['spt', body.src_endpoint?.port],
    ['dhost', own['device'] ?? body.dst_endpoint?.hostname],
    ['dst', body.dst_endpoint?.ip],
    ['dpt', body.dst_endpoint?.port],
    ['dproc', own['process']],
    ['in', own['bytes_in']],
    ['out', own['bytes_out']],
    ['act', body.metadata?.event_code],
    ['outcome', body.status_id === 1 ? 'success' : 'failure'],
    ['reason', own['reason']],
    ['msg', body.message],
    ['cn1', body.metadata?.sequence],
    ['cn1Label', 'idx'],
    ...custom.flatMap(([label, of], i): [string, unknown][] =>
      of === undefined || of === null || i > 5
        ? []
        : [
            [`cs${i + 1}`, of],
            [`cs${i + 1}Label`, label],
          ],
    ),
    ['fileHash', observed?.sha256],
  ]
}

/** `CEF:0|Sallyport|Gateway|version|event code|name|severity|fields`, one line. `body` is a leaf. */
export function formatCef(body: Uint8Array, joined: Joined): string {
  const parsed = JSON.parse(
    Buffer.from(body.buffer, body.byteOffset, body.length).toString(),
  ) as Body
  const code = parsed.metadata?.event_code ?? 'unknown'
  const severity = severities[parsed.severity_id ?? 1] ?? 1
  const version = parsed.metadata?.product?.version ?? '0'
  const head = [
    'CEF:0',
    'Sallyport',
    'Gateway',
    version,
    code,
    parsed.message?.slice(0, 512) ?? code,
  ]
  const fields = fieldsOf(parsed, joined).flatMap(([name, of]) => {
    const written = text(of)
    return written === undefined ? [] : [`${name}=${value(written)}`]
  })
  return `${head.map(header).join('|')}|${severity}|${fields.join(' ')}`
}
