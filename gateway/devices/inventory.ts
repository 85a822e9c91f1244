/**
 * What a device exposes, as its agent last told it, against what a person accepted: the baseline. Pure.
 * Process ids and start times are left out: a restart of the same program is no change.
 */
import { createHash } from 'node:crypto'
import type { Observed, Owner } from '#policy'

/** What a declaration can name of a program; null was not seen. */
export type Program = Pick<Owner, 'exe' | 'sha256' | 'script_sha256' | 'uid' | 'unit' | 'image'>

export interface Exposed {
  readonly process: string
  /** How the agent reaches it: `tcp` on the device, `lan` beside it. */
  readonly kind: string
  /** Who listens; empty where nobody does. */
  readonly programs: readonly Program[]
  /** Every address they listen on; null where that could not be seen. */
  readonly listens: readonly string[] | null
}

/** One target as the agent tells it. */
export interface ToldTarget {
  readonly process: string
  readonly kind: string
  readonly listener: Observed | null
  readonly listens: readonly string[] | null
}

export interface Inventory {
  /** SHA-256 of `processes`: what a person accepts is named by it. */
  readonly hash: string
  /** By name, each once. */
  readonly processes: readonly Exposed[]
  /** Processes of the device that its agent may not read; no part of the hash. */
  readonly unreadable: number
}

/** An inventory as it was kept; `at` is epoch seconds. */
export interface KeptInventory extends Inventory {
  readonly at: number
}

export interface Baseline {
  readonly hash: string
  readonly processes: readonly Exposed[]
  /** Epoch seconds. */
  readonly at: number
  /** Identity of whoever accepted it. */
  readonly by: string
}

/** Every method resolves when the change is durable. */
export interface InventoryStore {
  inventory(device: string): Promise<KeptInventory | undefined>
  putInventory(device: string, inventory: KeptInventory): Promise<void>
  baseline(device: string): Promise<Baseline | undefined>
  /** In place of the baseline before. */
  accept(device: string, baseline: Baseline): Promise<void>
}

/** One fact that is not as it was accepted. */
export interface Difference {
  readonly process: string
  /** `process`, `kind`, `listener`, `programs`, `listens`, or a fact of the program. */
  readonly fact: string
  /** As text; null: not there, or not seen. */
  readonly accepted: string | null
  readonly current: string | null
  /** False: nobody listens now, so there is nothing that could be another. */
  readonly drift: boolean
}

const FACTS = ['exe', 'sha256', 'script_sha256', 'uid', 'unit', 'image'] as const
const UNSEEN: Program = {
  exe: null,
  sha256: null,
  script_sha256: null,
  uid: null,
  unit: null,
  image: null,
}

/** The inventory that `targets` make; of targets of one name the last counts. */
export function inventoryOf(targets: readonly ToldTarget[], unreadable: number): Inventory {
  const byName = new Map(targets.map((target) => [target.process, exposed(target)]))
  const processes = [...byName.values()].toSorted((a, b) => order(a.process, b.process))
  return { hash: hashOf(processes), processes, unreadable }
}

function exposed({ process, kind, listener, listens }: ToldTarget): Exposed {
  // Who listens and is not told of was too many to tell: unseen, not absent.
  const nobody = listener === null && listens !== null && listens.length === 0
  const owners = listener === null ? [UNSEEN] : [listener, ...listener.others]
  const programs = nobody ? [] : distinct(owners.map(program))
  return { process, kind, programs, listens: listens === null ? null : distinct(listens) }
}

function program(owner: Program): Program {
  const { exe, sha256, script_sha256, uid, unit, image } = owner
  return { exe, sha256, script_sha256, uid, unit, image }
}

/** Each once, in an order that does not depend on how they came. */
function distinct<T>(values: readonly T[]): T[] {
  const byText = new Map(values.map((value) => [JSON.stringify(value), value]))
  return [...byText].toSorted(([a], [b]) => order(a, b)).map(([, value]) => value)
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function hashOf(processes: readonly Exposed[]): string {
  return createHash('sha256').update(JSON.stringify(processes)).digest('hex')
}

/** Every fact in which `current` is not `accepted`, by process. */
export function differences(
  accepted: readonly Exposed[],
  current: readonly Exposed[],
): readonly Difference[] {
  const names = new Set([...accepted, ...current].map(({ process }) => process))
  return [...names].toSorted(order).flatMap((name) => {
    const before = accepted.find(({ process }) => process === name)
    const after = current.find(({ process }) => process === name)
    if (before !== undefined && after !== undefined) return changed(before, after)
    const [was, is] = [before, after].map((one) => (one === undefined ? null : 'exposed'))
    return [row(name, 'process', was ?? null, is ?? null)]
  })
}

/** Whether what is exposed is other than what was accepted. */
export function hasDrift(found: readonly Difference[]): boolean {
  return found.some(({ drift }) => drift)
}

function changed(before: Exposed, after: Exposed): readonly Difference[] {
  const name = before.process
  const rows = [row(name, 'kind', before.kind, after.kind)]
  const [was, is] = [before.programs, after.programs]
  if (is.length === 0 && was.length > 0)
    return [...rows.filter(differs), { ...row(name, 'listener', textOf(was), null), drift: false }]
  const [one, other] = [was[0], is[0]]
  if (was.length === 1 && is.length === 1 && one !== undefined && other !== undefined)
    rows.push(...FACTS.map((fact) => row(name, fact, cell(one[fact]), cell(other[fact]))))
  else rows.push(row(name, was.length === 0 ? 'listener' : 'programs', textOf(was), textOf(is)))
  rows.push(row(name, 'listens', listed(before.listens), listed(after.listens)))
  return rows.filter(differs)
}

function row(
  process: string,
  fact: string,
  accepted: string | null,
  current: string | null,
): Difference {
  return { process, fact, accepted, current, drift: true }
}

function differs({ accepted, current }: Difference): boolean {
  return accepted !== current
}

function cell(value: string | number | null): string | null {
  return value === null ? null : String(value)
}

/** Every fact, so that two sets of programs that differ in any differ in their text. */
function textOf(programs: readonly Program[]): string | null {
  if (programs.length === 0) return null
  return programs
    .map((one) => FACTS.map((fact) => `${fact}=${one[fact] ?? '-'}`).join(' '))
    .join('; ')
}

function listed(listens: readonly string[] | null): string | null {
  return listens === null ? null : listens.join(' ')
}
