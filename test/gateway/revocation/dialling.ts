/** A device that dials again, after its certificate was taken from it. */
import { X509Certificate } from 'node:crypto'
import { soon, type DeviceIdentity, type TestNode } from '../../support/node.ts'
import { dialDevice, hello } from '../../support/tunnels.ts'

export const serialOf = (device: DeviceIdentity) =>
  new X509Certificate(device.chain[0] ?? '').serialNumber.toLowerCase()

/** What the gateway says to a device that dials again. */
export async function turnedAway(node: TestNode, device: DeviceIdentity): Promise<string> {
  const tunnel = await dialDevice(node, device)
  tunnel.open('control', Buffer.from(JSON.stringify(hello()))).catch(() => {})
  return (await soon('the gateway ends the tunnel', tunnel.closed)).code
}
