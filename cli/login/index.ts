/** Signing in from a terminal: the device flow, what it leaves on disk, and requests in a person's name. */
export { deviceLogin, type DevicePrompt, type Trust } from './device.ts'
export {
  credentialsDirectory,
  listCredentials,
  loadCredentials,
  prepareDirectory,
  removeCredentials,
  saveCredentials,
  type Credentials,
} from './credentials.ts'
export { authorizedFetch, type AuthorizedFetch } from './request.ts'
export { loadServiceFile, serviceFetch } from './service.ts'
export { logout } from './logout.ts'
