import type { Row } from '../row.ts'
export async function agentMemory(_quick: boolean): Promise<Row[]> { return [] }
