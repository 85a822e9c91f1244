/** The fuzzer of `npm run fuzz -- mux`, for as long as a test may take. */
import { expect, test } from 'vitest'
import { fuzz } from '../fuzz/mux.ts'

test('20,000 frames, none of which does more than end its session', async () => {
  expect(await fuzz({ cases: 20_000, seed: 20_260_801 })).toEqual({ cases: 20_000 })
})
