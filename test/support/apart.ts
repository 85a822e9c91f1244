/** An agent on a thread of its own (`besieged.ts` starts it): what it is sent costs its maker nothing. */
import { parentPort, workerData } from 'node:worker_threads'
import type { DeviceIdentity, TestNode } from './node.ts'
import { attach, type AgentOptions } from './tunnels.ts'

export interface Apart {
  readonly node: Pick<TestNode, 'port' | 'anchor'>
  readonly device: Pick<DeviceIdentity, 'key' | 'chain'>
  readonly options: AgentOptions
}

const { node, device, options } = workerData as Apart
await attach(node, device, options)
parentPort?.postMessage('attached')
