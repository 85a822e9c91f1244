/** docs/protocol.md is true: its diagram, its tables, and its exchange in octets. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { defaultLimits, diagram, muxCodes, table, TYPE } from '#mux'
import type { StreamEvent, StreamState } from '#mux'
import { Pair } from '../support/pair.ts'
import type { End } from '../support/pair.ts'

const page = readFileSync(join(import.meta.dirname, '../../docs/protocol.md'), 'utf8')
function fence(language: string): string {
  return new RegExp('```' + language + '\\n([\\s\\S]*?)\\n```').exec(page)?.[1] ?? ''
}

test('the diagram is made from the table', () => {
  expect(fence('mermaid')).toBe(diagram())
})

test('every error is listed with its number and sentence', () => {
  const rows = Object.entries(muxCodes).map(
    ([code, row]) => `| ${row.wire} | \`${code}\` | ${row.says} |`,
  )
  const section = page.slice(page.indexOf('## 9.'), page.indexOf('## 10.'))
  expect(section.split('\n').filter((line) => /^\| \d/.test(line))).toEqual(rows)
})

test('every frame type is listed with its number', () => {
  for (const [name, number] of Object.entries(TYPE)) {
    expect(page).toContain(`| 0x${number.toString(16).padStart(2, '0')} | ${name.toUpperCase()} |`)
  }
})

test('the limits are the defaults', () => {
  const section = page.slice(page.indexOf('## 8.'), page.indexOf('## 9.'))
  const said = (text: string): void => expect(section).toContain(text)
  said(`at once | ${defaultLimits.maxStreams.toLocaleString('en')} |`)
  said(`| OPEN | ${defaultLimits.opensPerSecond.toLocaleString('en')} / s`)
  said(`within a second | ${defaultLimits.resetsPerSecond} / s`)
  said(`| PING | ${defaultLimits.pingsPerSecond} / s`)
  said(`| SIGNAL, GOAWAY | ${defaultLimits.signalsPerSecond.toLocaleString('en')} / s`)
  said(`than 32 octets | ${defaultLimits.tinyFramesPerSecond.toLocaleString('en')} / s`)
  said(`ended stream | ${defaultLimits.emptyFramesPerSecond.toLocaleString('en')} / s`)
  said(`frames | ${defaultLimits.extensionBytesPerSecond / 1024} KiB / s`)
  said(`read | ${defaultLimits.maxBacklog / 2 ** 20} MiB`)
  said(`windows, whole tunnel | ${defaultLimits.receiveBudget / 2 ** 20} MiB`)
  said(`held, whole tunnel | ${defaultLimits.receiveMemory / 2 ** 20} MiB`)
  said(`on a stream | ${defaultLimits.datagramBudget / 1024} KiB`)
})

describe('the exchange', () => {
  const lines = fence('exchange').split('\n')
  test('has both ends and everything a session needs', () => {
    expect(lines.length).toBeGreaterThan(15)
  })

  test('is what two sessions say, octet by octet', () => {
    const pair = new Pair()
    const ends: Record<string, End> = { D: pair.dialler, A: pair.acceptor }
    for (const line of lines) {
      const [who = '', ...rest] = line.split(' ')
      if (who === '.') {
        act(ends[rest[0] ?? '']!, rest.slice(1))
        continue
      }
      const end = ends[who]!
      const slab = Buffer.from(end.session.output(end.now) ?? [])
      expect(`${who} ${slab.toString('hex')}`).toBe(`${who} ${rest.join('')}`)
      end.session.sent()
      end.take(end.session.poll())
      pair.other(end).hear(slab)
      // HELLOs cross, and so do the first PINGs: what arrives is looked at before the next words.
      const crosses = slab[0] === TYPE.hello || slab[0] === TYPE.ping
      if (!crosses || who === 'A') {
        for (const hearer of [pair.dialler, pair.acceptor]) hearer.deliver()
      }
    }
    expect([...pair.dialler.session.streams, ...pair.acceptor.session.streams]).toEqual([])
    expect(pair.dialler.told('goaway')).toEqual([
      { type: 'goaway', id: 0, code: 'gateway.stopping' },
    ])
  })

  function act(end: End, [verb, first = '', ...more]: readonly string[]): void {
    const session = end.session
    if (verb === 'open') {
      const made = session.open(
        first === 'udp' ? 'udp' : 'tcp',
        Buffer.from(more.join(' ')),
        end.now,
      )
      if (typeof made === 'string') throw new Error(made)
      end.streams.set(made.id, made)
      return
    }
    if (verb === 'close') return session.close(first)
    const stream = end.streams.get(Number(first))!
    const text = Buffer.from(more.join(' '))
    if (verb === 'accept') session.accept(stream, text)
    else if (verb === 'signal') session.signal(stream, text)
    else if (verb === 'write') session.write(stream, Buffer.from(more.join(''), 'hex'))
    else if (verb === 'end') session.end(stream)
    else throw new Error(`no verb ${verb}`)
  }
})

describe('the table', () => {
  const states = Object.keys(table) as StreamState[]
  const events = Object.keys(table.idle) as StreamEvent[]

  test('has a cell for every state and event', () => {
    for (const state of states) expect(Object.keys(table[state]).sort()).toEqual([...events].sort())
  })

  test('blames the peer for what it sends and us for what we send', () => {
    for (const state of states) {
      for (const event of events) {
        const cell = table[state][event]
        if (!cell.includes('.')) continue
        expect(cell.startsWith('call.')).toBe(event.startsWith('send'))
      }
    }
  })

  test('leads from idle to every state and from every state to closed', () => {
    const reach = (from: StreamState): Set<string> => {
      const seen = new Set<string>([from])
      for (const state of seen) {
        for (const to of Object.values(table[state as StreamState]))
          if (!to.includes('.')) seen.add(to)
      }
      return seen
    }
    expect([...reach('idle')].sort()).toEqual([...states].sort())
    for (const state of states) expect(reach(state).has('closed')).toBe(true)
  })

  test('never lets data flow before ACCEPT', () => {
    for (const state of ['idle', 'opening', 'offered'] as const) {
      for (const event of [
        'sendData',
        'recvData',
        'sendFin',
        'recvFin',
        'sendSignal',
        'recvSignal',
      ] as const) {
        expect(table[state][event]).toContain('.')
      }
    }
  })
})
