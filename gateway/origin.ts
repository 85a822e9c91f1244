/** Where people and devices find a node, whatever stands in front of it. */
import { splitHostPort, type Config } from './config.ts'

/** What people and devices dial: `https://<public host>:<port>`. */
export function originOf(config: Config): string {
  return `https://${config.public_host}:${publicPort(config)}`
}

/** The port they dial. */
export function publicPort(config: Config): number {
  return config.public_port ?? splitHostPort(config.listen).port
}
