/** The door of the EST client: what an agent needs to get, check and renew its certificate. */
export {
  cacertsRequest,
  enrollRequest,
  readCertificates,
  reenrollRequest,
  type EstAnswer,
  type EstCall,
} from './est.ts'
export { createCsr, createRenewalCsr, type DeviceNames } from './csr.ts'
export { encodeEstBody, parseCertsOnly } from './body.ts'
export { acceptIssued, pinRoot, type Accepted } from './check.ts'
export { channelBinding, type BindingSocket } from './binding.ts'
export { renewAt, retryAfter } from './renew.ts'
export { EstError, type EstCode } from './errors.ts'
