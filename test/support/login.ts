/** A sign-in on a command line that waits for a browser: where that is to go, and what comes of it. It ends with its test. */
import { onTestFinished } from 'vitest'
import { deviceLogin } from '../../cli/login/index.ts'

export async function waitingLogin({
  origin,
  anchor,
}: {
  readonly origin: string
  readonly anchor: string
}) {
  const stopped = new AbortController()
  onTestFinished(() => stopped.abort())
  const prompt = Promise.withResolvers<string>()
  const login = deviceLogin({
    gateway: origin,
    trust: { anchor },
    signal: stopped.signal,
    onPrompt: ({ completeUrl }) => prompt.resolve(completeUrl),
  })
  // What fails before it has asked anybody fails here; afterwards it is the caller's to await.
  login.catch((error: unknown) => prompt.reject(error))
  return { url: await prompt.promise, login }
}
