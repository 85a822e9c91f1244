/** Whether a page that names a test as the proof of something names one that runs. */

/** The program of a test file without its comments: what is commented out proves nothing. */
export function programOf(text: string): string {
  return text.replaceAll(/^\s*(?:\/\/|\*|\/\*).*$/gm, '')
}

/** Tests that run nowhere. What is left out where a program is not installed, the run itself tells of. */
const NEVER =
  /\.(?:skip|todo|only|fails)\b|\.(?:skipIf\(\s*(?:true|!false|1)|runIf\(\s*(?:false|!true|0))\s*\)/

/** Up to the quote before its name: `test('`, `test.for(rows)('`, `describe.skipIf(!haveGo)('`, over lines. */
const CALL = String.raw`(?<![\w.'"\`])(?:test|describe)(?:\.\w+(?:\([^()]*\))?)*\(\s*['"\`]`
/** The same of a row: \`name: '\`, or first in a list. */
const ROW = String.raw`(?:\bname: |\[\s*)['"\`]`
/** A test that is run for each row of a table, and called after it. */
const FOR_ROWS = /(?:test|describe)\.(?:for|each)\([^()]*\)\(\s*['"`][^'"`\n]*(?:\$\w|%s)/

/**
 * Why `name` is no test of a program that runs; undefined where it is. It is the beginning of what a test
 * or a group is called, or of the name of a row that a test of the file is run for.
 */
export function faultOf(program: string, name: string): string | undefined {
  if (NEVER.test(program)) return 'the file has tests that never run'
  // The quote in a name stands in the program as it can be written there.
  const text = RegExp.escape(name).replaceAll(String.raw`\x27`, String.raw`\\?\x27`)
  if (new RegExp(CALL + text).test(program)) return undefined
  return FOR_ROWS.test(program) && new RegExp(ROW + text).test(program) ? undefined : 'no such test'
}
