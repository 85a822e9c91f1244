/**
 * Loaded first by a gateway in a process of its own (`node --import`): who signs in there by script approves at once,
 * and need not wait two seconds to ask whether they have.
 */
import { LIFETIMES } from '../../gateway/identity/setting.ts'

Object.assign(LIFETIMES, { poll: 0.05 })
