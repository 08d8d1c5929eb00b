import { randomUUID } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/lib/clock.ts'
import type { Kv } from '../../src/store/kv.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { objectsContract } from '../contract/objects.ts'

const over = (kv: Kv) => new KvObjects(kv, { clock: systemClock, newUid: randomUUID })
objectsContract('memory', async () => over(new MemoryKv()))
objectsContract('lmdb', async () => over(await openLmdb(mkdtempSync(join(tmpdir(), 'plasmavmc-store-')))))
