/** One act on a CA in a process that ends by kill -9 after the step it is told: `node dying.ts DATA ACT STEP [FILE]`. */
import { readConfig } from '../../../gateway/config.ts'
import { initCa, rotate } from '../../../gateway/keys/acts.ts'
import { requestSubordinate } from '../../../gateway/keys/bring.ts'
import { exportRoot } from '../../../gateway/keys/export.ts'
import { openRoom } from '../../../gateway/keys/room.ts'

const [data = '', act = '', last = '', file = ''] = process.argv.slice(2)
const config = readConfig({ overrides: { data }, environment: {} })
const room = openRoom(config, 'operator|test', {
  step: (name) => {
    if (name === last) process.kill(process.pid, 'SIGKILL')
  },
})
const copy = { text: 'correct horse battery', file: 'the test', beside: false }
const acts: Readonly<Record<string, () => Promise<unknown>>> = {
  init: async () => await initCa(room),
  'export-root': async () => await exportRoot(room, file, copy),
  rotate: async () => await rotate(room, {}),
  'rotate --root': async () => await rotate(room, { root: true }),
  'init --subordinate': async () => await requestSubordinate(room),
}
await acts[act]?.()
