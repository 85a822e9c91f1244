/** #boot: which agent a device starts, and what it keeps of updates; small, because every start goes through it. */
export { chooseAgent, watchTrial, type Chosen } from './boot.ts'
export { replaceFile, syncDirectory } from './durable.ts'
export { MOST_KEYS, Shelf, UPDATE_WORD } from './shelf.ts'
export {
  beginTrial,
  confirmTrial,
  failTrial,
  heardOutcome,
  repeatTrial,
  type BootState,
  type Outcome,
  type TrialFault,
} from './state.ts'
