import { fuzz } from './csr.ts'
for (const seed of [3,3,3,2,5]) { const t = Date.now(); try { console.log(await fuzz({ cases: 6000, seed }), seed, Date.now()-t) } catch (e) { console.log(seed, String(e), String(e.cause), Date.now()-t) } }
