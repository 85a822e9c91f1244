/** What a schema cannot say: settings that exclude or need one another, and words that only their readers know. */
import { readUpdateKey } from '#update'
import { ticketPattern } from '../grants/tickets.ts'
import { networksOf } from '../networks.ts'
import { storeObjection } from '../store-settings.ts'
import { ConfigError } from './errors.ts'
import { splitHostPort, type Config } from './schema.ts'

/** Why a setting cannot be as it is. */
interface Objection {
  readonly message: string
  readonly cause?: unknown
}

type Check = (config: Config) => Objection | undefined

/** By the setting that is to be changed; the first that objects is the one that is told. */
const CHECKS: { readonly [K in keyof Config]?: Check } = {
  timezone: ({ timezone }) =>
    unread(
      () => new Intl.DateTimeFormat('en', { timeZone: timezone }),
      () => `no time zone is called ${timezone}`,
    ),
  operations: ({ operations }) =>
    where(
      !isLoopback(splitHostPort(operations).host),
      'health and metrics are served on loopback only',
    ),
  balancers: ({ balancers }) =>
    unread(
      () => networksOf(balancers),
      (said) => `an address or a network (192.0.2.0/24) is expected, not ${said}`,
    ),
  tickets: ({ tickets }) =>
    tickets === undefined
      ? undefined
      : unread(
          () => ticketPattern(tickets.pattern),
          () => 'the pattern is no regular expression',
        ),
  update_keys: ({ update_keys: keys }) => {
    const unknown = keys.find((word) => readUpdateKey(word) === undefined)
    return where(unknown !== undefined, `${unknown} is no key`)
  },
  store: ({ store }) => {
    const message =
      store === undefined ? undefined : storeObjection(store.redis, isLoopback(store.redis.host))
    return message === undefined ? undefined : { message }
  },
  notices: ({ notices: { mail, webhooks = [] } }) =>
    where(
      mail?.tls === 'none' && !isLoopback(mail.host),
      'mail leaves this machine over TLS alone',
    ) ??
    where(
      (mail?.user === undefined) !== (mail?.password_file === undefined),
      'user and password_file come together',
    ) ??
    where(sharesName(webhooks), 'two webhooks share one name'),
  syslog: ({ syslog, sinks }) =>
    where(sharesName([...syslog, ...sinks]), 'two sinks share one name'),
}

/** Throws ConfigError `config.value` for the first that does not hold. */
export function checkMeaning(config: Config): void {
  for (const [place, check] of Object.entries(CHECKS)) {
    const objection = check(config)
    if (objection === undefined) continue
    const { message, ...options } = objection
    throw new ConfigError('config.value', place, message, options)
  }
}

const where = (wrong: boolean, message: string): Objection | undefined =>
  wrong ? { message } : undefined

/** What throws is not to be read; `message` is told what was said of it. */
function unread(read: () => unknown, message: (said: string) => string): Objection | undefined {
  try {
    read()
    return undefined
  } catch (cause) {
    return { message: message(cause instanceof Error ? cause.message : String(cause)), cause }
  }
}

function sharesName(named: readonly { readonly name: string }[]): boolean {
  return new Set(named.map(({ name }) => name)).size !== named.length
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.')
}
