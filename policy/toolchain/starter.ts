/**
 * The folder a security team begins with: the default rules and data as theirs, their own codes, the
 * vectors that prove each rule, the schemas for their editor, and a page that says what to do with it.
 */
import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BASE, regoFiles, ROOM } from './sources.ts'
import { DEFAULT_TREE, TreeError } from './tree.ts'

const README = `# Access policy

Who may reach what behind this site's gateways, in Rego. \`sallyport policy --help\` lists the commands;
they find \`opa\` on PATH, in the cache, or install the one they need with Go.

| here | what it is |
|---|---|
| \`rules/\` | packages \`policy.<point>\`: they fill the sets \`allow\`, \`deny\`, \`obligations\`; yours to change |
| \`site.json\` | zones, roles, limits: data, checked against \`schema/site.json\` |
| \`codes.json\` | the codes your rules add, with the sentence and the next step a person reads |
| \`tests/\` | decision vectors: \`base.json\` has an input per point and \`site.json\` the data they stand on, whatever yours becomes; the rows say what is different and what comes out |
| \`vectors/\` | the few vectors that travel in the bundle; a gateway decides them before it activates |
| \`manifest.json\` | \`revision\`: the name of this release; \`max_age_s\`: when it counts as stale, 0 for never |
| \`schema/\` | the input, the site data and the decision, for your editor |
| \`ci.sh\` | the gates, for any CI that runs commands |

The way of a change:

\`\`\`
sallyport policy fmt .         the compiler's format
sallyport policy check .       format, types, writing rules, codes
sallyport policy test .        Rego tests, coverage, vectors in both engines and with each field wrong, speed
sallyport policy sign . --key ../policy-key.pem --seq 1 --out ../bundle.tar     the next release: --seq 2
sallyport policy push ../bundle.tar
\`\`\`

The key is made once, by \`sallyport policy keygen --out ../policy-key.pem\`, and stays out of this folder and its history.
A gateway takes what it signed when its configuration names the public half, \`policy-key.pem.pub\`, under \`policy.trust\`.

Three rules of writing keep a policy closed; \`check\` says where they are broken:

- A denial's body is one \`not _helper\` or \`not a.b == literal\`: a missing field then denies.
- Times and counts are compared with \`lib.between\` and \`lib.fresh\`: in Rego \`null < 5\` holds.
- Every \`allow\` and every \`deny\` has a code, and every code is in \`codes.json\` or the product's own.
`

const CI = `#!/bin/sh
# For any CI that runs commands: the gates, on every change.
set -eu
cd -- "$(dirname -- "$0")"
sallyport policy check .
sallyport policy test .
`

const MANIFEST = { revision: 'site-1', issued_at: null, max_age_s: 0 }

/**
 * Makes the folder. Takes a path that does not exist or is empty. Gives the names of what it made.
 * Errors: TreeError `policy.tree` where something is there already.
 */
export async function starter(directory: string): Promise<string[]> {
  await mkdir(directory, { recursive: true })
  if ((await readdir(directory)).length > 0)
    throw new TreeError(`${directory} is not empty`, 'name a new directory')
  await mkdir(join(directory, 'rules'))
  for (const path of (await regoFiles()).filter((name) => name.startsWith('default/')))
    await writeFile(
      join(directory, 'rules', path.slice('default/'.length)),
      await readFile(join(ROOM, path)),
    )
  await cp(DEFAULT_TREE.site, join(directory, 'site.json'))
  await cp(DEFAULT_TREE.vectors, join(directory, 'vectors'), { recursive: true })
  await cp(join(ROOM, 'schema'), join(directory, 'schema'), { recursive: true })
  await cp(join(BASE, 'test', 'vectors', 'decisions'), join(directory, 'tests'), {
    recursive: true,
  })
  await cp(DEFAULT_TREE.site, join(directory, 'tests', 'site.json'))
  const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`
  await writeFile(join(directory, 'manifest.json'), json(MANIFEST))
  await writeFile(join(directory, 'codes.json'), json({ denials: {}, reasons: {} }))
  await writeFile(join(directory, 'README.md'), README)
  await writeFile(join(directory, 'ci.sh'), CI, { mode: 0o755 })
  return (await readdir(directory)).toSorted()
}
