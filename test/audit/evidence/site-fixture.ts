/** What the tests of a site's evidence share: logs of several gateways, and packages made anew by who has no key. */
import {
  derive,
  judge,
  manifestText,
  proveSite,
  readVkey,
} from '../../../audit/evidence/verify.mjs'
import { listed, packEntry, zipOf, type Packed } from '../../../audit/evidence/zip.ts'
import { minute, type Month } from '../month.ts'
import { catalogue } from './fixture.ts'

/** A month that stands at this time, with a heartbeat each minute before and then. */
export function until(month: Month, time: number): Month {
  month.every = 12
  while (month.time + minute <= time) month.pass(1)
  if (time > month.time) {
    month.time = time
    month.beat()
  }
  return month
}

export function close(month: Month, time: number): void {
  until(month, time)
  month.one.sign(month.time)
  month.one.close()
}

/** What a package is to be of. */
interface Remaking {
  readonly vkeys: readonly string[]
  readonly nodes: readonly string[]
  readonly from: number
  readonly to: number
}

/** A package all of whose reports are made anew of other entries: what who has the program and no key can do. */
export function rebuilt(
  entries: readonly Packed[],
  { vkeys, nodes, from, to }: Remaking,
  more: readonly Packed[] = [],
): Buffer {
  const of = new Map(entries.map((entry) => [entry.name, entry]))
  const logs = entries.filter(({ name }) => name.startsWith('nodes/'))
  const read = new Map(
    logs.map(({ name, bytes, packed }) => [
      name,
      { name, bytes: Buffer.from(bytes), packed: Buffer.from(packed) },
    ]),
  )
  const proven = proveSite(read, vkeys.map(readVkey), [...nodes])
  const judged = judge(proven, from, to)
  const controls = JSON.parse(Buffer.from(of.get('catalogue.json')?.bytes ?? []).toString())
  const what = {
    from,
    to,
    framework: undefined,
    device: undefined,
    catalogueSha256: catalogue.sha256,
  }
  const derived = [...derive(proven, judged, what, controls)].map(([name, text]) =>
    packEntry(name, text),
  )
  const kept = ['catalogue.json', 'verify.mjs', 'verify.py'].flatMap((name) => of.get(name) ?? [])
  const all = [...logs, ...kept, ...derived, ...more]
  const manifest = packEntry('manifest.json', manifestText(proven, judged, what, all.map(listed)))
  const sum = packEntry('manifest.sha256', `${listed(manifest).sha256}  manifest.json\n`)
  return zipOf([...all, manifest, sum])
}
