import { scenarios, shareLab } from './shared.ts'

// Apart from the hosts, so that some of them can lose the store while it serves the others.
shareLab({ etcd: 'apart' })

scenarios('how many may lose the store', () => import('./brake.ts'))
scenarios('disks on an NBD server', () => import('./nbd.ts'))
