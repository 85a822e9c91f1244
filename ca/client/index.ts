/** The door of the EST client: what an agent needs to get, check and renew its certificate. */
export {
  cacertsRequest,
  csrattrsRequest,
  enrollRequest,
  introduceRequest,
  readCertificates,
  readCsrAttributes,
  reenrollRequest,
  type EstAnswer,
  type EstCall,
} from './est.ts'
export {
  createCsr,
  createPlainCsr,
  createRenewalCsr,
  type DeviceNames,
  type PlainNames,
  type RemoteKey,
  type RequestKey,
} from './csr.ts'
export { type CsrWishes } from './csrattrs.ts'
export { encodeEstBody, parseCertsOnly } from './body.ts'
export { acceptIssued, pinRoot, type Accepted } from './check.ts'
export { isLimitedFurther, pathTo } from './path.ts'
export { channelBinding, type BindingSocket } from './binding.ts'
export { renewAt, retryAfter } from './renew.ts'
export { EstError, type EstCode } from './errors.ts'
