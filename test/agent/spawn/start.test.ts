/** Spawned programs as real processes: what is not started, and how much one that was may say and hear. */
import { appendFileSync, chmodSync, copyFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { holds, proceed, soon, type Opened } from '../gateway.ts'
import { sha256Of } from '../programs/process.ts'
import { closed, device, missing, place, root, run, SH, sh, target } from './tool.ts'

describe.skipIf(missing)('unshare: what cannot be started', () => {
  test('a directory that is gone', async () => {
    const { reason } = await run(sh('true', { cwd: join(place(), 'gone') }))
    expect(reason).toMatchObject({
      code: 'spawn.failed',
      message: 'the program was not started: cwd: ENOENT',
    })
  })

  test.skipIf(!root)('a file that its user may not run', async () => {
    const copy = join(place(), 'true')
    copyFileSync('/bin/true', copy)
    chmodSync(copy, 0o700)
    const { reason } = await run(target({ argv: [copy] }))
    expect(reason.message).toBe('the program was not started: exec: EACCES')
  })

  const refused = async (tool: ReturnType<typeof target>): Promise<unknown> => {
    await using one = await device(tool)
    return await one.open().catch((error: unknown) => error)
  }
  test('a file that is not there, a script, a directory', async () => {
    const script = join(place(), 'script')
    writeFileSync(script, '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    const rows = [
      [join(place(), 'nothing'), /cannot be opened/],
      [script, /is a script: declare its interpreter/],
      [place(), /is no file/],
    ] as const
    for (const [path, says] of rows)
      expect(await refused(target({ argv: [path] }))).toMatchObject({
        code: 'spawn.program',
        message: expect.stringMatching(says) as string,
      })
  })

  test('a file that is replaced or changed between decision and start: not a byte of it', async () => {
    const copy = join(place(), 'tool')
    copyFileSync('/bin/echo', copy)
    chmodSync(copy, 0o755)
    await using one = await device(target({ argv: [copy, 'the decided one'] }))
    const first = await one.open()
    rmSync(copy)
    copyFileSync('/usr/bin/env', copy)
    chmodSync(copy, 0o755)
    proceed(first)
    first.stream.end()
    expect(await closed(first)).toMatchObject({ code: 'spawn.program' })
    expect(first.received).toHaveLength(0)
    const second = await one.open()
    expect(second.observed!['sha256']).toBe(sha256Of('/usr/bin/env'))
    appendFileSync(copy, 'x')
    proceed(second)
    second.stream.end()
    expect(await closed(second)).toMatchObject({ code: 'spawn.program' })
    expect(second.received).toHaveLength(0)
  })

  test('a script that is replaced or changed between decision and start: not a byte of it', async () => {
    const script = join(place(), 'script')
    writeFileSync(script, 'echo the decided one\n', { mode: 0o755 })
    await using one = await device(target({ argv: [SH, script] }))
    const spoil = [
      () => {
        rmSync(script)
        writeFileSync(script, 'echo the decided one\n', { mode: 0o755 })
      },
      () => appendFileSync(script, 'echo and more\n'),
      () => rmSync(script),
    ]
    for (const change of spoil) {
      const opened = await one.open()
      expect(opened.observed!['script_sha256']).toBe(sha256Of(script))
      change()
      proceed(opened)
      opened.stream.end()
      expect(await closed(opened)).toMatchObject({ code: 'spawn.program' })
      expect(opened.received).toHaveLength(0)
    }
  })

  test('more than 32 at once: refused, and room again when one has ended', async () => {
    await using one = await device(sh('exit 0'))
    const all: Opened[] = []
    for (let at = 0; at < 32; at++) all.push(await one.open())
    await expect(one.open()).rejects.toMatchObject({ code: 'agent.full' })
    all.pop()!.stream.reset('client.gone')
    await holds(async () => (await one.open()).stream.reset('client.gone'))
  })
})

describe.skipIf(missing)('unshare: how much it says and hears', () => {
  test('64 MiB of output to a reader that stops: it waits, nothing is lost', async () => {
    await using one = await device(sh('head -c 67108864 /dev/zero'))
    const opened = await one.open()
    let got = 0
    let owed = 0
    let reading = false
    opened.stream.onData = (chunk) => {
      got += chunk.length
      if (reading) opened.stream.consumed(chunk.length)
      else owed += chunk.length
    }
    proceed(opened)
    await holds(() => expect(got).toBeGreaterThan(100_000))
    expect(got).toBeLessThan(32 * 1024 * 1024)
    reading = true
    opened.stream.consumed(owed)
    opened.stream.end()
    expect(await soon('all of it', opened.closed)).toMatchObject({ code: 'done' })
    expect(got).toBe(67_108_864)
  })

  test('input to a program that does not read it is held back by credit, and ends with it', async () => {
    await using one = await device(sh('sleep 2'))
    const opened = await one.open()
    proceed(opened)
    let taken = 0
    const chunk = Buffer.alloc(256 * 1024)
    while (taken < 64 && opened.stream.write(chunk)) taken++
    expect(taken).toBeLessThan(64)
    expect(opened.signals).toEqual([])
    await holds(() => expect(opened.signals).toEqual([{ t: 'exit', code: 0 }]))
    opened.stream.reset('client.done')
  })
})
