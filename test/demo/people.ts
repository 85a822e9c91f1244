/** Signing in as each person does: the device flow, with the browser's part played by a script. */
import { approveDevice, openBrowser } from '../support/browser.ts'
import { expect } from './failure.ts'
import { readLine } from './programs.ts'
import type { Person, Stage } from './stage.ts'

const SIGN_IN_MS = 60_000

/** `sallyport login` in one process, the code confirmed in a browser; resolves when signed in. */
export async function signIn(
  stage: Stage,
  person: Person,
  caSha256: string,
  anchor: string,
): Promise<void> {
  const args = ['login', '--gateway', stage.origin, '--ca-sha256', caSha256]
  const start = stage.sallyport.start(person.role, args)
  const program = stage.programs.start({
    ...start,
    name: `login-${person.role}`,
    cwd: stage.directory,
  })
  const url = await program.line('the address to open', SIGN_IN_MS, (line) => {
    const complete = readLine(line)?.['verification_uri_complete']
    return typeof complete === 'string' ? complete : undefined
  })
  await using browser = openBrowser(anchor)
  const page = await approveDevice(browser, { url, email: person.email, password: person.password })
  expect(page.status === 200, `the browser to say that ${person.email} is signed in`, page.text)
  const code = await program.end
  expect(code === 0, `${person.email} to be signed in`, program.lines.at(-1) ?? `exit ${code}`)
}
