/**
 * Which clause a question speaks to. A mapping is an opinion and says so wherever it is printed; clause text is neither
 * stored nor shown. design: compliance.md sections 1 and 3.
 */
import { hash } from 'node:crypto'
import shipped from './catalogue.json' with { type: 'json' }
import { AuditError } from '../errors.ts'
import { queries } from './verify.mjs'
import type { Control } from './verify.mjs'

export interface Catalogue {
  readonly controls: readonly Control[]
  readonly sha256: string
}

function refuse(id: string, what: string): never {
  throw new AuditError('evidence.catalogue', `catalogue entry ${id}: ${what}`)
}

function check(control: Partial<Control>): Control {
  const { id = '?', wording, query, expect, limits } = control
  for (const name of ['framework', 'edition', 'ref', 'title', 'gist', 'source'] as const)
    if (typeof control[name] !== 'string' || control[name] === '') refuse(id, `no ${name}`)
  if (!/^[a-z0-9][a-z0-9.-]{0,40}$/.test(id)) refuse(id, 'its id is not a plain name')
  if (wording === undefined || !['O', 'S', 'T', 'U'].includes(wording)) refuse(id, 'no wording')
  if (wording === 'O' && (control.checked_by === undefined || control.checked_on === undefined))
    refuse(id, 'wording O needs checked_by and checked_on')
  if (typeof limits !== 'string' || limits === '') refuse(id, 'it does not say its limits')
  if (expect !== 'rows' && expect !== 'empty') refuse(id, 'expect is rows or empty')
  if (!Array.isArray(query) || query.length === 0) refuse(id, 'it asks nothing')
  for (const name of query)
    if (!Object.hasOwn(queries, name as string)) refuse(id, `no such query: ${String(name)}`)
  return control as Control
}

/** The catalogue as shipped, entries of `own` in place of those with their id. Errors: evidence.catalogue. */
export function readCatalogue(own: readonly Partial<Control>[] = []): Catalogue {
  const byId = new Map<string, Control>()
  for (const control of [...(shipped as Partial<Control>[]), ...own])
    byId.set(control.id ?? '?', check(control))
  const controls = [...byId.values()]
  return { controls, sha256: hash('sha256', JSON.stringify(controls)) }
}
