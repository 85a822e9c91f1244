/** Whose keys recordings are sealed to: nothing that must be recorded is opened before there are two of them, or after. */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AddedAuditor, Auditor, Problem } from '#api'
import { identityOf, openSealed } from '#audit'
import { oblige } from '../../support/policy.ts'
import { anna, bert, Plant } from './plant.ts'

let plant: Plant
beforeAll(async () => {
  plant = await Plant.start({})
})
afterAll(async () => await plant[Symbol.asyncDispose]())

describe('before there are two auditors', () => {
  test('a session that must be recorded is not opened, and whoever asked is told what is missing', async () => {
    oblige({ record: true })
    const refused = await plant.vendor.call<Problem>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect([refused.status, refused.body.code]).toEqual([503, 'recording.unavailable'])
    expect(refused.body.next_step).toContain('sallyport audit auditor add')
    const last = plant.node.events().findLast(({ code }) => code === 'session.deny')
    expect(last?.text).toContain('recording.unavailable')
    expect(readdirSync(plant.node.data)).not.toContain('recordings')
  })

  test('an auditor who has not shown that the key opens anything does not count', async () => {
    const added = await plant.node.admin.ask<AddedAuditor>('POST', '/auditors', {
      name: 'anna',
      recipient: anna.recipient.text,
    })
    expect(added.auditor.state).toBe('unconfirmed')
    expect(() => openSealed(Buffer.from(added.test, 'base64'), [bert])).toThrow(
      /not sealed to this key/,
    )
    const wrong = await plant.node.admin.call<Problem>('POST', '/auditors/anna/confirm', {
      secret: 'guessed',
    })
    expect([wrong.status, wrong.body.code]).toEqual([403, 'auditor.test'])
    expect(plant.node.events().some(({ text }) => text.includes('is not confirmed'))).toBe(true)
    await plant.enrol('bert', bert)
    oblige({ record: true })
    const refused = await plant.vendor.call<Problem>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect(refused.body.code).toBe('recording.unavailable')
    const again = await plant.node.admin.call<Problem>('POST', '/auditors', {
      name: 'anna2',
      recipient: anna.recipient.text,
    })
    expect(again.body.code).toBe('auditor.exists')
    const { plain } = openSealed(Buffer.from(added.test, 'base64'), [anna])
    const confirmed = await plant.node.admin.ask<Auditor>('POST', '/auditors/anna/confirm', {
      secret: Buffer.from(plain).toString(),
    })
    expect(confirmed.state).toBe('active')
    const told = (operation: string) =>
      plant.node
        .events()
        .filter(({ text }) => text.includes(operation) && text.includes(anna.recipient.text))
    expect(told('auditor:add')).not.toEqual([])
    expect(told('auditor:confirm').at(-1)?.text).toContain('is confirmed')
  })

  test('only an administrator says who they are', async () => {
    for (const person of [plant.vendor, plant.auditor]) {
      const refused = await person.call<Problem>('POST', '/auditors', {
        name: 'mallory',
        recipient: identityOf(randomBytes(32)).recipient.text,
      })
      expect(refused.status).toBe(403)
    }
    const bad = await plant.node.admin.call<Problem>('POST', '/auditors', {
      name: 'mallory',
      recipient: `${anna.recipient.text.slice(0, -1)}!`,
    })
    expect(bad.status).toBe(400)
  })
})

test('an auditor who is removed opens nothing that is recorded later, and too few of them close the door', async () => {
  await plant.node.admin.ask('POST', '/auditors/anna/remove')
  oblige({ record: true })
  const refused = await plant.vendor.call<Problem>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
  })
  expect(refused.body.code).toBe('recording.unavailable')
  expect((await plant.node.admin.call<Problem>('POST', '/auditors/anna/remove')).status).toBe(404)
})
