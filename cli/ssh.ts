/**
 * A process as ssh knows it: `<process>--<device>.sallyport`, a name that no resolver has and that
 * `known_hosts` keeps the device's own key under; and the command that carries ssh there. Pure.
 */
import { usage } from './exit.ts'

/** Where a profile is not the default one it is part of the name: two plants may both have a press-07. */
function suffixOf(profile: string): string {
  return profile === 'default' ? '.sallyport' : `.${profile}.sallyport`
}

export interface Target {
  readonly device: string
  readonly process: string
}

export function sshHost({ device, process }: Target, profile: string): string {
  return `${process}--${device}${suffixOf(profile)}`
}

/** The process that a host name of `sshHost` means; undefined where it is none. Throws usage for another profile's. */
export function readSshHost(text: string, profile: string): Target | undefined {
  if (!text.endsWith('.sallyport')) return undefined
  const label = text.endsWith(suffixOf(profile)) ? text.slice(0, -suffixOf(profile).length) : ''
  // Names hold no double hyphen.
  const match = /^([a-z0-9]+(?:-[a-z0-9]+)*)--([a-z0-9]+(?:-[a-z0-9]+)*)$/.exec(label)
  const [, process, device] = match ?? []
  if (process === undefined || device === undefined || process.length > 40 || device.length > 40)
    throw usage(
      `${JSON.stringify(text)} is not a process of the profile ${profile}`,
      `sallyport ssh-config prints how they are called`,
    )
  return { device, process }
}

export interface Carriage {
  /** What starts this very program. */
  readonly program: readonly string[]
  /** Options before the command. */
  readonly options: readonly string[]
  readonly grant: string | undefined
}

/** The value of ssh's ProxyCommand; `place` is `%h` or a name of `sshHost`. ssh hands it to a shell, after its own `%`. */
export function proxyCommand({ program, options, grant }: Carriage, place: string): string {
  const given = grant === undefined ? [] : ['--grant', grant]
  const words = [...program, ...options, 'connect', ...given].map(word)
  return [...words, place === '%h' ? place : word(place), '--stdio'].join(' ')
}

function word(text: string): string {
  const plain = /^[A-Za-z0-9_./:@=+-]+$/.test(text)
  return (plain ? text : `'${text.replaceAll("'", `'\\''`)}'`).replaceAll('%', '%%')
}

/** What belongs in `~/.ssh/config`: for one process, or for every process of the profile. */
export function stanza(carriage: Carriage, profile: string, target?: Target): string[] {
  const command = `  ProxyCommand ${proxyCommand(carriage, '%h')}`
  if (target === undefined) return [`Host *--*${suffixOf(profile)}`, command]
  const host = sshHost(target, profile)
  return [`Host ${host}`, `  HostKeyAlias ${host}`, command]
}
