import { beforeEach, expect, it } from 'vitest'
import { type Lab, lab, machine, machines, merge } from './fixture.ts'

let server: Lab
beforeEach(async () => {
  server = await lab()
})

/** Makes a machine with a disk, and says of it what its host would. */
async function made(spec: object, has?: string): Promise<void> {
  await server.call('POST', machines, machine('vm', { disks: [{ name: 'first', size: '1Mi' }, spec] }))
  const { json } = await server.call('GET', `${machines}/vm`)
  json.status = {
    disks: [
      { name: 'first', state: 'Ready', size: '1Mi' },
      { name: 'data', state: 'Ready', ...(has && { size: has }) },
    ],
  }
  expect((await server.call('PUT', `${machines}/vm/status`, json)).code).toBe(200)
}

const changed = (disk: object, more: object = {}) =>
  server.call(
    'PATCH',
    `${machines}/vm`,
    { spec: { disks: [{ name: 'first', size: '1Mi' }, disk] }, ...more },
    { 'content-type': merge },
  )

const data = (size?: string) => ({ name: 'data', ...(size && { size }) })

it('a disk that was made is not made smaller, and nothing changes', async () => {
  await made(data('4Mi'), '4Mi')
  const { code, json } = await changed(data('1Mi'))
  expect([code, json.reason]).toEqual([422, 'Invalid'])
  expect(json.details.causes).toEqual([
    {
      ...{ reason: 'FieldValueInvalid', field: 'spec.disks[1].size' },
      message:
        'Invalid value: "1Mi": disk data has 4Mi and is never made smaller; set it to 4Mi, or take another name for a new disk',
    },
  ])
  const { json: after } = await server.call('GET', `${machines}/vm`)
  expect([after.spec.disks[1].size, after.metadata.generation]).toEqual(['4Mi', 1])
})

it.each([
  ['one that grows', data('4Mi'), '4Mi', data('8Mi')],
  ['the same in other words', data('4Mi'), '4Mi', data('4096Ki')],
  ['the same in whole sectors', data('1000'), '1Ki', data('900')],
  ['a growth that is taken back before it was made', data('8Mi'), '4Mi', data('4Mi')],
  ['one that was not made yet', data('4Mi'), undefined, data('1Mi')],
  ['another name', data('4Mi'), '4Mi', { name: 'new', size: '1Mi' }],
  ['a file of somebody in its place', data('4Mi'), '4Mi', { ...data('1Mi'), path: '/srv/x' }],
  ['one that is left as it is, too small', data('1Mi'), '4Mi', { ...data('1Mi'), serial: 'x' }],
])('takes %s', async (_name, before, has, after) => {
  await made(before, has)
  expect((await changed(after)).code).toBe(200)
})

it('an image that decided the size is not cut either', async () => {
  const image = { source: 'x' }
  await made({ ...data(), image }, '4Mi')
  expect((await changed({ ...data('1Mi'), image })).code).toBe(422)
  expect((await changed({ ...data('4Mi'), image })).code).toBe(200)
})
