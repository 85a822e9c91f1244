/** #heads: what somebody outside keeps of a log, and nothing that writes one: small enough for a device. */
export { HeadKeeper } from '../heads.ts'
