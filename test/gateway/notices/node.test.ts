/** A node that tells people: whoever may approve, the holder, and the control room, from what happens there. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Grant } from '#api'
import { makeCertificates } from '../../audit/receiver.ts'
import { openSession, startNode, until } from '../../support/node.ts'
import { oblige } from '../../support/policy.ts'
import { attach, expecting, PLC, seen } from '../../support/tunnels.ts'
import { mailReceiver, webhookReceiver } from './receivers.ts'

test('a request, its approval and another’s refusal reach who must know, and nobody else', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-notices-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const certificates = await makeCertificates()
  await using mail = await mailReceiver(certificates.server)
  await using hook = await webhookReceiver(certificates.server)
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 })
    return join(folder, name)
  }
  const ca = file('ca.pem', certificates.ca)
  const config = [
    'notices:',
    '  webhooks:',
    `    - { name: ops, url: "${hook.url}", servername: siem.test, ca_file: "${ca}",`,
    `        secret_file: "${file('secret', 'a secret of some length\n')}" }`,
    `  mail: { host: 127.0.0.1, port: ${mail.port}, servername: siem.test, ca_file: "${ca}",`,
    `    from: sallyport@plant.example, user: sally, password_file: "${file('password', 'pass\n')}" }`,
    '',
  ].join('\n')
  await using node = await startNode({ config })
  const device = await node.device('press-07', { plc: expecting() })
  await using _agent = await attach(node, device, { listeners: { plc: seen(PLC, 'listener') } })
  const [vera, oda] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('oda', { party: 'staff', roles: ['operator'] }),
    node.person('adam', { party: 'staff', roles: ['auditor'] }),
  ])
  const subjects = (to: string) =>
    mail.mails
      .filter((one) => one.to.some((address) => address.startsWith(to)))
      .map(({ text }) => /^Subject: (.*)$/m.exec(text)?.[1])
  const ask = async (reason: string) =>
    await vera.ask<Grant>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 600,
      reason,
    })
  const asked = await ask('counters')
  await until('oda is asked', () => subjects('oda').length === 1)
  expect(subjects('oda')).toEqual(['Approval asked for press-07/plc'])
  await oda.ask('POST', `/grants/${asked.id}/approve`, { hash: asked.hash })
  await until('vera is told', () => subjects('vera').length === 1)
  const refused = await ask('more counters')
  await oda.ask('POST', `/grants/${refused.id}/reject`, { reason: 'not today' })
  await until('vera is told of both', () => subjects('vera').length === 2)
  expect(subjects('vera')).toEqual([
    'Access to press-07/plc is approved',
    'Access to press-07/plc is refused or withdrawn',
  ])
  expect(subjects('adam')).toEqual([])
  const kinds = () => hook.posted.map(({ body }) => (JSON.parse(body) as { kind: string }).kind)
  await until('the program is told of all', () => kinds().includes('grant.refused'))
  expect(kinds()).toContain('grant.requested')
  expect(kinds()).toContain('grant.approved')
  // A session that policy wants somebody to watch, and nobody does: who may is told, and how.
  oblige({ supervise: true })
  const { id } = await openSession(vera, 'press-07', 'plc')
  const watch = 'Supervision asked for press-07/plc'
  await until('oda is asked to watch', () => subjects('oda').includes(watch))
  const step = `sallyport session watch ${id} --supervise`
  expect(mail.mails.some(({ text }) => text.replaceAll('=\n', '').includes(step))).toBe(true)
  expect([...subjects('adam'), ...subjects('vera')]).not.toContain(watch)
  await until('the program is told', () => kinds().includes('session.unwatched'))
  const health = await node.health()
  expect(health).toMatchObject({
    notices: { given_up: 0, last_error: null },
    break_glass: { reviews_open: 0, reviews_overdue: 0 },
  })
})
