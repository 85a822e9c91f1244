/** What a person is told where the store failed: whether it may have been done all the same, and where to look. */
import { Refusal } from './problem.ts'
import type { StoreError } from './store/sqlite/thread.ts'

const OWN = {
  detail: 'the store did not take the call',
  nextStep: 'look at the log and the disk of the gateway; nothing was half done',
}
const UNANSWERED = {
  detail: 'the store that gateways share did not confirm the call: it may have been done',
  nextStep:
    'look whether it was done before you ask again; the log of the gateway has what Redis said',
}
const UNFIT = {
  detail: 'the store that gateways share may forget what it confirms, so nothing was done',
  nextStep: 'tell the platform owner: the log of the gateway has the settings of Redis to change',
}
const WORDS: Readonly<Record<string, typeof OWN>> = {
  'store.unavailable': UNANSWERED,
  'store.replicas': {
    detail:
      'too few replicas of the store that gateways share have the call: it may have been done',
    nextStep:
      'look whether it was done before you ask again; tell the platform owner that replicas are missing',
  },
  'store.volatile': UNFIT,
  'store.settings': UNFIT,
}

/** `store.unavailable`, in the words of what failed: a shared store, or the gateway's own file. */
export function storeRefusal(cause: StoreError): Refusal {
  const { detail, nextStep } = WORDS[cause.code] ?? OWN
  return new Refusal('store.unavailable', detail, { cause, nextStep })
}
