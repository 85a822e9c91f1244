/** The launcher as a program: what the agent starts where it runs from its sources. */
import { becomeProgram } from './become.ts'

becomeProgram()
