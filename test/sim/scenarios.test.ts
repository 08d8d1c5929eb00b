import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { product } from '../../src/sim/product.ts'
import { playScenario, scriptShape, worldShape } from '../../src/sim/scenario.ts'

const root = fileURLToPath(new URL('scenarios', import.meta.url))

/** `UPDATE_GOLDEN=1` writes the logs anew; look at what changed before you commit it. */
const update = process.env['UPDATE_GOLDEN'] === '1'

function read(name: string, file: string): unknown {
  return parse(readFileSync(`${root}/${name}/${file}`, 'utf8'))
}

describe('scenarios', () => {
  test.each(readdirSync(root).sort())('%s', async (name) => {
    const log: string[] = []
    try {
      await playScenario(
        worldShape.parse(read(name, 'world.yaml')),
        scriptShape.parse(read(name, 'script.yaml')),
        product,
        log,
      )
    } catch (error) {
      throw new Error(`${(error as Error).message}\n\n${log.join('\n')}`, { cause: error })
    }
    const text = `${log.join('\n')}\n`
    const file = `${root}/${name}/log.txt`
    if (update || !existsSync(file)) writeFileSync(file, text)
    expect(text).toBe(readFileSync(file, 'utf8'))
  })
})
