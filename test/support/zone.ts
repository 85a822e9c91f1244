/** Another default zone for a node under test: the rules of the product over site data of one's own, signed by the site. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { PolicyStatus } from '#api'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import { saveCredentials } from '../../cli/login/index.ts'
import { run } from '../cli/run.ts'
import type { Person } from './node.ts'

export interface Site extends Disposable {
  /** Lines of the configuration of a node that takes what this site signs. */
  readonly config: string
  /** Has the default zone say `more`, pushed by one person and activated by another. */
  zone(more: Readonly<Record<string, unknown>>, by: readonly [Person, Person]): Promise<void>
}

export function siteOfOwn(): Site {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-site-'))
  const key = newSigningKey()
  const trusted = join(folder, 'trust.pub')
  writeFileSync(trusted, key.publicKey)
  let seq = 0
  const policy = async (person: Person, ...words: string[]): Promise<void> => {
    const home = join(folder, person.email)
    await saveCredentials(join(home, 'credentials'), person.credentials)
    expect(await run(home, 'policy', ...words)).toMatchObject({ code: 0 })
  }
  return {
    config: `policy:\n  trust: [${JSON.stringify(trusted)}]\n`,
    async zone(more, [first, second]) {
      const file = join(folder, `${++seq}.tar`)
      writeFileSync(file, bundleOf(more, { pem: key.privateKey, seq }))
      await policy(first, 'push', file)
      const { candidate } = await first.ask<PolicyStatus>('GET', '/policy')
      await policy(second, 'activate', candidate?.digest ?? '')
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  }
}

function bundleOf(
  more: Readonly<Record<string, unknown>>,
  { pem, seq }: { readonly pem: string; readonly seq: number },
): Uint8Array {
  const files = new Map(
    [...untrusted(readFileSync(BUILTIN_BUNDLE))].filter(([name]) => !name.startsWith('vectors/')),
  )
  const read = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name))) as object
  const data = read('data.json') as { site: { zones: { default: Record<string, unknown> } } }
  for (const name of Object.keys(more)) expect(data.site.zones.default).toHaveProperty(name)
  Object.assign(data.site.zones.default, more)
  files.set('data.json', Buffer.from(JSON.stringify(data)))
  const revision = `zone-${seq}`
  files.set('.manifest', Buffer.from(JSON.stringify({ ...read('.manifest'), revision })))
  return signRelease(files, { pem, seq, iat: seq }).archive
}
