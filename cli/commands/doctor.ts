/** `sallyport doctor`: walks from this machine to the gateway and names the first thing that is broken. */
import type { Command } from 'commander'
import type { Api } from '../client.ts'
import { CliError } from '../exit.ts'
import { note, tell } from '../print.ts'
import { globalOptions } from './options.ts'

/** More than this and short-lived proofs and tokens stop being believed. */
const SKEW_MAX_S = 60

interface Finding {
  readonly hop: string
  readonly found: string
}

export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('walk the way to the gateway and say what is broken')
    .action(async (_flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const findings: Finding[] = []
      const { openApi } = await import('../client.ts')
      const walk = async (hop: string, look: () => Promise<string>): Promise<void> => {
        try {
          findings.push({ hop, found: await look() })
        } catch (error) {
          if (!options.json) for (const one of findings) note(`ok      ${one.hop}: ${one.found}`)
          note(`BROKEN  ${hop}`)
          throw error
        }
      }
      let api: Api | undefined
      await walk('sign-in kept', async () => {
        api = await openApi(options)
        return api.gateway.origin
      })
      if (api !== undefined) await walkTo(api, walk)
      tell(
        options,
        findings,
        findings.map(({ hop, found }) => `ok      ${hop}: ${found}`),
      )
    })
}

type Walk = (hop: string, look: () => Promise<string>) => Promise<void>

async function walkTo(api: Api, walk: Walk): Promise<void> {
  const [{ lookup }, { proxyOut }, { exchange }, { dialGateway }, { Me }] = await Promise.all([
    import('node:dns/promises'),
    import('../dial.ts'),
    import('../anchor.ts'),
    import('../gateway-tunnel.ts'),
    import('../client.ts'),
  ])
  const host = api.gateway.hostname.replace(/^\[|\]$/g, '')
  const port = Number(api.gateway.port || 443)
  const proxy = proxyOut()
  await walk(proxy === undefined ? 'name' : 'name of the proxy', async () => {
    const name = proxy?.host ?? host
    const found = await lookup(name, { all: true }).catch((cause: unknown) => {
      throw unknownName(name, cause)
    })
    return found.map(({ address }) => address).join(', ')
  })
  await walk(
    `${proxy === undefined ? '' : 'proxy, '}TLS, pinned root and tunnel protocol`,
    async () => {
      const socket = await dialGateway({ host, port }, api.anchor)
      const found = `${socket.getProtocol() ?? 'TLS'}, ${socket.getCipher().standardName}`
      socket.destroy()
      return found
    },
  )
  await walk('clock', async () => {
    const url = new URL('/api/v1/info', api.gateway)
    const { headers } = await exchange({ method: 'GET', url, anchor: api.anchor })
    return compare(Date.parse(headers['date'] ?? ''))
  })
  await walk('sign-in accepted', async () => {
    const me = await api.call(Me, 'GET', '/me')
    return `${me.email ?? me.id}, ${me.roles.join(' ')}`
  })
}

function unknownName(host: string, cause: unknown): CliError {
  return new CliError(
    `the name ${host} is not known here`,
    {
      code: 'gateway.name',
      exit: 'unreachable',
      why: cause instanceof Error ? cause.message : String(cause),
      next: 'ask the network people for the name, or for a DNS server that knows it',
    },
    { cause },
  )
}

function compare(gateway: number): string {
  const skew = Math.round((gateway - Date.now()) / 1000)
  if (Number.isNaN(skew)) return 'the gateway does not say'
  if (Math.abs(skew) <= SKEW_MAX_S) return `within ${SKEW_MAX_S} s of the gateway's`
  throw new CliError(
    `this clock is ${Math.abs(skew)} s ${skew > 0 ? 'behind' : 'ahead of'} the gateway's`,
    {
      code: 'clock.skew',
      exit: 'failed',
      next: 'set the clock of this machine, then repeat this',
    },
  )
}
