/** The door: run a node, or only make its data directory. */
export { ConfigError, readConfig, type Config } from './config.ts'
export { VERSION } from './version.ts'
export type { Addresses } from './gateway.ts'
export { rotateLog, type LogRotated } from './epochs.ts'
export { initGateway, runGateway, type GatewayArguments, type Initialised } from './run.ts'
export {
  caExportRoot,
  caImport,
  caInit,
  caRequest,
  caRotate,
  caStatus,
  type CaStatus,
  type Imported,
  type Initiated,
} from './ca.ts'
