/**
 * An attacker as a process: reads one line `{attack, place}`, attacks until stdin ends, prints a line
 * for every GOAWAY code it hears the first time.
 */
import { setPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { attacks, type Place } from './abuse.ts'

const stop = new AbortController()
const lines = createInterface({ input: process.stdin })
lines.once('line', (line) => {
  const { attack: name, place } = JSON.parse(line) as { attack: string; place: Place }
  const attack = attacks.find((one) => one.name === name)
  if (attack === undefined) throw new Error(`no attack is called ${name}`)
  const told = new Set<string>()
  const heard = (code: string) => {
    if (!told.has(code)) console.log(code)
    told.add(code)
  }
  // The machine is the gateway's and the bystanders'; attackers live elsewhere.
  if (process.argv[2] !== 'ordinary') setPriority(19)
  console.log('began')
  attack.run(place, stop.signal, heard).then(
    () => process.exit(0),
    (error: unknown) => {
      console.error(error)
      process.exit(1)
    },
  )
})
lines.once('close', () => {
  stop.abort()
  // What is still dialling need not be waited for.
  setTimeout(() => process.exit(0), 200)
})
