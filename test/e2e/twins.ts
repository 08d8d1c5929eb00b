import { doubles } from './proc.ts'

/**
 * A program that looks at /proc again and again, and prints every moment at which a machine whose files lie in the
 * folder of its argument had two QEMUs. On SIGTERM it says how often it looked.
 */
const [, , folder = ''] = process.argv
let looks = 0

function look(): void {
  for (const twins of doubles((argv) => argv.some((word) => word.includes(`${folder}/`)))) {
    process.stdout.write(`twins ${twins.map(({ uid, pid }) => `${uid}:${pid}`).join(' ')}\n`)
  }
  looks++
}

process.on('SIGTERM', () => process.stdout.write(`looks ${looks}\n`, () => process.exit(0)))
// Between two looks the others get their turn on the processors.
setInterval(look, 5)
