import { fuzz } from './csr.ts'
for (const seed of [2,3,4,5]) { const t = Date.now(); try { console.log(await fuzz({ cases: 5000, seed }), seed, Date.now()-t) } catch (e) { console.log(seed, String(e).slice(0,400), String(e.cause), Date.now()-t) } }
