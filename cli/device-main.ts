/**
 * Where the agent in one file begins, `npm run build:agent`. An executable that is to run an update loads nothing of the agent
 * that is installed in it: that would be in memory twice.
 */
import { becomesUpdate } from './become-update.ts'

if (!becomesUpdate()) void import('./device.ts')
