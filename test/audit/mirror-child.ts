/** A mirror that follows a log directory until it holds everything; says each file it asks for. */
import { readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openMirror, parseTilePath, Publisher } from '#audit'

const [directory = '', log = '', keyFile = ''] = process.argv.slice(2)
const vkeys = readFileSync(keyFile, 'utf8').split('\n')
const publisher = new Publisher(log, vkeys[0]?.split('+')[0] ?? '')
const note = readFileSync(join(log, 'checkpoint'), 'utf8')
const size = Number(note.split('\n')[1])
using mirror = await openMirror(directory, vkeys, () => Date.now())
await mirror.follow({
  checkpoint: () => Promise.resolve(note),
  tile(path) {
    writeSync(1, `${path}\n`)
    const name = parseTilePath(path)
    if (name === null) throw new Error(path)
    // Whoever kills this process gets a turn in between.
    return new Promise((resolve) => setImmediate(() => resolve(publisher.tile(name, size))))
  },
  submit: () => Promise.resolve(writeSync(1, 'submitted\n')).then(() => undefined),
})
