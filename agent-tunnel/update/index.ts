/** #update: what an update of the agent is, who signed it, and whether a device takes it. Values only. */
export { checkUpdate, type Checked, type Standing, type UpdateFault } from './check.ts'
export { readUpdateKey, updateKeyOf, type UpdateKey } from './key.ts'
export {
  isSigned,
  ManifestError,
  MOST_BUNDLE_BYTES,
  MOST_MANIFEST_CHARACTERS,
  readManifest,
  signUpdate,
  type Update,
} from './manifest.ts'
export { rankOf, readVersion } from './version.ts'
