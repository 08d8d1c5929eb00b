import { scenarios, shareLab } from './shared.ts'

// Terms that leave a new guard time to start on a machine that is busy with other tests.
shareLab({ flags: ['--lease-duration', '20', '--lease-deadline', '14'] })

scenarios('what is done to hosts on purpose', () => import('./operate.ts'))
scenarios('processes that fall silent', () => import('./silence.ts'))
scenarios('where machines may run', () => import('./placement.ts'))
