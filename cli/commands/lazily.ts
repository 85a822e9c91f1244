/** Acts of a command that are loaded when it is asked for: most runs of the program need none of them. */

type Act = (...given: never[]) => Promise<void>

/** An act of a page: commander gives it what the command declares. */
export function lazily<Page>(
  page: () => Promise<Page>,
  name: keyof Page,
): (...given: unknown[]) => Promise<void> {
  return async (...given) => {
    const act = (await page())[name] as Act
    await act(...(given as never[]))
  }
}
