import { run } from '../../src/host/exec.ts'
import { machine, workshop } from './disk-fixture.ts'

/** A server that is killed while it makes a disk: says where, and goes on until somebody kills it. */
const [, , image = '', dir = ''] = process.argv
setInterval(() => {}, 1000)
if (image === 'sleep') void run('sleep', ['1000.25'], { endsWithUs: true })
else {
  const { disks, own } = workshop({ dataDir: dir })
  const vm = machine({ disks: [{ name: 'a', format: 'raw', image: { source: image } }] })
  disks.onChange(() => void disks.observe(vm).then(([disk]) => process.send?.({ own, ...disk })))
  disks.prepare(vm)
}
process.send?.('begun')
