/** What ends a session: losing what it stands on cuts it at once, durably and for a stated reason. */
import { describe, expect, test, vi } from 'vitest'
import { CATALOGUE } from '#policy'
import type { EndedGrant } from '#api'
import { soon, until } from '../../support/node.ts'
import { setBefore, setForward } from '../../support/clock.ts'
import { answer, oblige } from '../../support/policy.ts'
import { expecting, PLC, refusalOf, seen, serve } from '../../support/tunnels.ts'
import { carried, endsSince, here, isCut, NEWER, twoDevices } from './carried.ts'

twoDevices()

describe('what ends a session', () => {
  test('its grant is revoked', async () => {
    const one = await carried()
    const ended = await here.node.admin.ask<EndedGrant>('POST', `/grants/${one.grant.id}/revoke`, {
      reason: 'enough',
    })
    expect(ended.grant.state).toBe('revoked')
    expect(ended.cut.sessions.map(({ id }) => id)).toEqual([one.session.id])
    expect(ended.cut.slowest_ms).toBeGreaterThan(0)
    // When the answer is there, everything it says is durable and nothing passes any more.
    expect(endsSince(one.from)).toHaveLength(1)
    const record = await isCut(one, /^grant\.revoked$/, 'policy_recheck')
    // Who is cut is told what to do, and what to ask about, as who is refused is.
    const { next_step, decision_id } = one.line.signals.at(-1) as Record<string, string>
    expect(next_step).toBe(CATALOGUE['grant.revoked'].next)
    expect((await here.vendor.call('GET', `/decisions/${decision_id}`)).body).toMatchObject({
      point: 'session.reevaluate',
      why: [{ code: 'grant.revoked' }],
    })
    expect(record.time_to_cut_ms).toBe(ended.cut.sessions[0]?.time_to_cut_ms)
    const again = await here.vendor.call('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
      grant: one.grant.id,
    })
    expect([again.status, again.body.code]).toEqual([403, 'grant.revoked'])
  })

  test('its holder gives the grant back', async () => {
    const one = await carried()
    await here.vendor.ask('POST', `/grants/${one.grant.id}/done`)
    await isCut(one, /^grant\.expired$/, 'grant_burned')
  })

  test('its holder ends it', async () => {
    const one = await carried()
    await here.vendor.ask('POST', `/sessions/${one.session.id}/end`)
    const record = await isCut(one, /^client\.done$/, 'client_done')
    expect(record.time_to_cut_ms).toBeNull()
  })

  test('an operator cuts it', async () => {
    const one = await carried()
    const cut = await here.operator.ask<{ slowest_ms: number }>(
      'POST',
      `/sessions/${one.session.id}/cut`,
      { reason: 'odd' },
    )
    expect(cut.slowest_ms).toBeGreaterThan(0)
    await isCut(one, /^session\.killed$/, 'killed')
    expect(here.node.events(one.from).map(({ code }) => code)).toContain('session.kill')
  })

  test('its device is quarantined', async () => {
    const one = await carried()
    await here.operator.ask('POST', '/devices/press-07/quarantine', { reason: 'odd' })
    await isCut(one, /^device\.quarantined$/, 'policy_recheck')
    await here.node.admin.ask('POST', '/devices/press-07/resume', { reason: 'fine' })
  })

  test('its process must now be another executable', async () => {
    const one = await carried()
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting('/usr/bin/newer'))
    await isCut(one, /^process\.mismatch$/, 'process_mismatch')
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
  })

  test('one of two connections stands on an executable that is no longer approved', async () => {
    const both = { ...expecting(), expect: { sha256: [seen(PLC).sha256, seen(NEWER).sha256] } }
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', both)
    const one = await carried()
    here.agent.observed = seen(NEWER)
    const second = await one.client.line(one.session)
    second.write('pong')
    await second.until('it is carried too', ({ text }) => text === 'pong')
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting(NEWER))
    expect((await one.line.gone()).code).toBe('process.mismatch')
    expect((await second.gone()).code).toBe('process.mismatch')
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
  })

  test('its process becomes another kind, which would be held to other rules', async () => {
    const one = await carried()
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting(PLC, 'modbus'))
    await isCut(one, 'process.kind', 'policy_recheck')
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
  })

  test('the device sees another owner of its socket', async () => {
    const one = await carried()
    here.agent.report({
      type: 'owner_changed',
      session: one.session.id,
      observed: seen('/tmp/evil'),
    })
    await isCut(one, /^process\.mismatch$/, 'process_mismatch')
  })

  test('the device does not see the owner of its socket any more', async () => {
    const one = await carried()
    here.agent.report({ type: 'owner_changed', session: one.session.id, observed: null })
    await isCut(one, /^process\./, 'policy_recheck')
  })

  test('the device says nonsense about the owner of its socket', async () => {
    const one = await carried()
    here.agent.report({ type: 'owner_changed', session: one.session.id, observed: { exe: 7 } })
    await isCut(one, /^process\./, 'policy_recheck')
  })

  test('the time of its grant is over', async () => {
    const one = await carried()
    setBefore(one.session.expires_at, 1000)
    await isCut(one, /^window\.end$/, 'window_end')
    expect(Date.now()).toBeGreaterThanOrEqual(one.session.expires_at * 1000)
  })

  test('the time of its grant is over, though the clock of the machine was set back by a day', async () => {
    const one = await carried()
    setBefore(one.session.expires_at, 1000)
    // The node has seen how late it is before the clock is put back.
    await here.node.health()
    const real = Date.now
    const set = vi.spyOn(Date, 'now').mockImplementation(() => real() - 86_400_000)
    await one.line.gone().finally(() => set.mockRestore())
    await isCut(one, /^window\.end$/, 'window_end')
  })

  test('the time of its grant runs out while policy is being asked, which calls it otherwise', async () => {
    const one = await carried()
    answer((decision, point) => {
      if (point !== 'session.reevaluate') return decision
      setBefore(one.session.expires_at, 0)
      const denials = [{ code: 'grant.expired', msg: 'the grant has expired' }]
      return { ...decision, effect: 'deny', allow: false, reasons: [], denials }
    })
    here.agent.report({ type: 'owner_changed', session: one.session.id, observed: seen(PLC) })
    await isCut(one, /^window\.end$/, 'window_end')
  })

  test('nobody uses it', async () => {
    oblige({ idle_timeout_s: 300 })
    const one = await carried()
    setForward(300_000)
    await isCut(one, /^session\.idle$/, 'idle')
  })

  test('use keeps it from being idle', async () => {
    oblige({ idle_timeout_s: 100 })
    const one = await carried()
    for (let at = 1; at <= 4; at++) {
      setForward(60_000)
      one.line.write('x')
      await one.line.until('it is carried', ({ total }) => total === 4 + at)
    }
    expect((await here.node.health()).sessions).toBe(1)
    await here.vendor.ask('POST', `/sessions/${one.session.id}/end`)
  })

  test('the rule is asked again when its time has come, and says no', async () => {
    let no = false
    answer((decision, point) => {
      if (point !== 'session.reevaluate' && point !== 'session.open') return decision
      const obligations = { ...decision.obligations, reeval_after_s: 1 }
      if (!no || point === 'session.open') return { ...decision, obligations }
      const denials = [{ code: 'window.closed', msg: 'the window of the zone is closed' }]
      return { ...decision, effect: 'deny', allow: false, reasons: [], denials, obligations }
    })
    const one = await carried()
    no = true
    await isCut(one, /^window\.closed$/, 'policy_recheck')
  })

  test('deciding fails: that is a no', async () => {
    let broken = false
    answer((decision, point) => {
      if (broken && point === 'session.reevaluate') throw new Error('broken')
      return decision
    })
    const one = await carried()
    broken = true
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
    await isCut(one, /^policy\.error$/, 'policy_recheck')
  })

  test('half of it is closed already', async () => {
    const one = await carried()
    here.agent.target = (stream) => {
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.onEnd = () => {}
      stream.end()
    }
    const half = await one.client.line(one.session)
    await half.until('the end of one way', ({ ended }) => ended)
    await here.node.admin.ask('POST', `/grants/${one.grant.id}/revoke`, { reason: 'enough' })
    expect((await half.gone()).code).toBe('grant.revoked')
    await until('the device’s side is closed', () => here.agent.open() === 0)
  })

  test('while a connection is being opened: it never gets a byte', async () => {
    const one = await carried()
    const { promise: asked, resolve } = Promise.withResolvers<() => void>()
    here.agent.answer = (offer, metadata) => resolve(() => serve(here.agent, offer, metadata))
    const attempt = refusalOf(one.client.stream(one.session))
    const go = await soon('the device is asked', asked)
    const proceeded = here.agent.proceeded
    await here.node.admin.ask('POST', `/grants/${one.grant.id}/revoke`, { reason: 'enough' })
    go()
    expect((await attempt).code).toMatch(/^(session\.ended|grant\.revoked)$/)
    expect(here.agent.proceeded).toBe(proceeded)
    await until('no stream is left', () => here.agent.open() === 0)
  })

  test('a reader who does not read cannot keep it', async () => {
    const one = await carried()
    here.agent.target = (stream) => {
      const pour = () => {
        while (stream.write(new Uint8Array(65_536))) continue
      }
      stream.onDrain = pour
      pour()
    }
    const stalled = await one.client.line(one.session, { reading: false, keep: false })
    await until('something came', () => stalled.total > 0)
    const ended = await here.node.admin.ask<EndedGrant>('POST', `/grants/${one.grant.id}/revoke`, {
      reason: 'enough',
    })
    expect(ended.cut.sessions).toHaveLength(1)
    expect((await stalled.gone()).code).toBe('grant.revoked')
    await until('no stream is left', () => here.agent.open() === 0)
  })
})
