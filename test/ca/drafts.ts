/** A CA for the whole of a file, and drafts of certificates for a device of it. */
import type { KeyObject } from 'node:crypto'
import { afterAll, beforeAll } from 'vitest'
import { instant, prepare, profiles, type Draft, type IssueRequest } from '#ca'
import { sanFor, subjectFor, uriFor } from '../../ca/name.ts'
import { spkiOf } from './requests.ts'
import { Bench, newKey, NOON, random, TENANT } from './support.ts'

/** Of the file that runs. */
export const here = {} as { bench: Bench }

export function oneCa(): void {
  beforeAll(async () => {
    here.bench = await Bench.open()
  })
  afterAll(() => here.bench[Symbol.asyncDispose]())
}

export const now = instant(NOON)

export function wanted(key: KeyObject, change: Partial<IssueRequest> = {}): IssueRequest {
  return {
    tenant: TENANT,
    subject: 'press-07',
    name: subjectFor('press-07'),
    san: sanFor(uriFor(TENANT, 'device', 'press-07')),
    spki: spkiOf(key),
    recall: null,
    parent: null,
    tokenId: null,
    decisionId: null,
    requestId: null,
    ...change,
  }
}

export function draft(key = newKey(), change: Partial<IssueRequest> = {}, at = now): Draft {
  return prepare(profiles.device, wanted(key, change), here.bench.house.issuers.active, at, random)
}
