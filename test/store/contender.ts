import { writeSync } from 'node:fs'
import { lockFolder } from '../../src/store/folder-lock.ts'

// Tries for the lock of a folder when its standard input ends; holds it until killed, or says who does.
const [folder = ''] = process.argv.slice(2)
writeSync(1, 'here\n')
process.stdin.resume()
process.stdin.once('end', async () => {
  try {
    await lockFolder(folder)
    writeSync(1, `mine ${process.pid}\n`)
    setInterval(() => {}, 60_000)
  } catch (error) {
    writeSync(1, `${(error as Error).message}\n`)
  }
})
