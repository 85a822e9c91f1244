/**
 * Says how many files knip looked at, so that check.mjs can tell a clean tree from an unseen one.
 * @param {{counters: {total: number}}} result
 */
export default function report({ counters }) {
  console.log(`saw ${counters.total} files`)
}
