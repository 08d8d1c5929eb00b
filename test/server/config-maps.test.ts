import { beforeAll, describe, expect, it } from 'vitest'
import { type Lab, lab, merge } from './fixture.ts'

const path = '/api/v1/namespaces/default/configmaps'
const secrets = '/api/v1/namespaces/default/secrets'
let server: Lab
beforeAll(async () => {
  server = await lab()
})

let made = 0
const post = (body: object, at = path) => {
  made += 1
  return server.call('POST', at, { metadata: { name: `c${made}` }, ...body })
}
const patch = (name: string, body: object, at = path) =>
  server.call('PATCH', `${at}/${name}`, body, { 'content-type': merge })

describe('a ConfigMap', () => {
  it('keeps texts and bytes as they are', async () => {
    const body = { data: { 'a.b-c_D': 'x\ny', empty: '' }, binaryData: { blob: '//4=' } }
    const { code, json } = await post(body)
    expect([code, json]).toEqual([201, expect.objectContaining(body)])
    expect((await server.call('GET', `${path}/${json.metadata.name}`)).json).toEqual(json)
  })

  it.each([
    [
      'a bad key',
      { data: { 'a b': '' } },
      'data[a b]',
      'FieldValueInvalid',
      /"a b": a valid config key must consist/,
    ],
    ['a long key', { data: { ['x'.repeat(254)]: '' } }, /^data\[x+\]$/, 'FieldValueInvalid', /253/],
    [
      'the folder itself',
      { binaryData: { '.': '' } },
      'binaryData[.]',
      'FieldValueInvalid',
      /must not be '\.'/,
    ],
    ['the folder above', { data: { '..': '' } }, 'data[..]', 'FieldValueInvalid', /must not be '\.\.'/],
    [
      'a hidden parent',
      { data: { '..x': '' } },
      'data[..x]',
      'FieldValueInvalid',
      /must not start with '\.\.'/,
    ],
    [
      'a key twice',
      { data: { a: '' }, binaryData: { a: '' } },
      'binaryData[a]',
      'FieldValueInvalid',
      /duplicate of key present in data/,
    ],
    ['no base64', { binaryData: { a: 'abc' } }, 'binaryData[a]', 'FieldValueInvalid', /base64/],
    ['no text', { data: { a: 1 } }, 'data.a', 'FieldValueTypeInvalid', /must be a string/],
    [
      'too much text',
      { data: { a: 'é'.repeat(512 * 1024), b: 'x' } },
      '',
      'FieldValueTooLong',
      /^Too long: may not be more than 1048576 bytes$/,
    ],
    [
      'too many bytes',
      { data: { b: 'x' }, binaryData: { a: Buffer.alloc(1024 * 1024).toString('base64') } },
      '',
      'FieldValueTooLong',
      /1048576/,
    ],
  ])('may not have %s', async (_, body, field, reason, message) => {
    const { code, json } = await post(body)
    expect([code, json.details?.causes]).toEqual([
      422,
      [
        {
          field: typeof field === 'string' ? field : expect.stringMatching(field),
          reason,
          message: expect.stringMatching(message),
        },
      ],
    ])
  })

  it('may have just as much as Kubernetes takes', async () => {
    expect((await post({ data: { a: 'é'.repeat(512 * 1024) } })).code).toBe(201)
    expect((await post({ binaryData: { a: Buffer.alloc(1024 * 1024).toString('base64') } })).code).toBe(201)
  })

  it('that is immutable stays as it is', async () => {
    const { json } = await post({ data: { a: '1' }, immutable: true })
    const { name } = json.metadata
    for (const [body, field] of [
      [{ data: { a: '2' } }, 'data'],
      [{ data: { b: '2' } }, 'data'],
      [{ data: null }, 'data'],
      [{ binaryData: { b: '' } }, 'binaryData'],
      [{ immutable: false }, 'immutable'],
      [{ immutable: null }, 'immutable'],
    ] as const) {
      const { code, json: status } = await patch(name, body)
      expect([code, status.details?.causes], JSON.stringify(body)).toEqual([
        422,
        [
          {
            field,
            reason: 'FieldValueForbidden',
            message: 'Forbidden: field is immutable when `immutable` is set',
          },
        ],
      ])
    }
    const labelled = await patch(name, { metadata: { labels: { a: 'b' } } })
    expect([labelled.code, labelled.json.data]).toEqual([200, { a: '1' }])
    expect((await server.call('DELETE', `${path}/${name}`)).code).toBe(200)
  })

  it('becomes immutable with what it then has', async () => {
    const { json } = await post({ data: { a: '1' } })
    expect((await patch(json.metadata.name, { data: { a: '2' }, immutable: true })).code).toBe(200)
    expect((await patch(json.metadata.name, { data: { a: '3' } })).code).toBe(422)
  })

  it('is merged key by key when it is applied', async () => {
    const apply = (manager: string, data: object) =>
      server.call(
        'PATCH',
        `${path}/shared?fieldManager=${manager}`,
        { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'shared' }, data },
        { 'content-type': 'application/apply-patch+yaml' },
      )
    await apply('one', { a: '1' })
    await apply('two', { b: '2' })
    expect((await apply('one', { c: '3' })).json.data).toEqual({ b: '2', c: '3' })
    expect((await apply('one', { b: '4' })).code).toBe(409)
  })
})

describe('a Secret', () => {
  it('has a type that does not change', async () => {
    const { json } = await post({}, secrets)
    expect(json.type).toBe('Opaque')
    const changed = await patch(json.metadata.name, { type: 'example.com/x' }, secrets)
    expect(changed.json.details.causes).toEqual([
      {
        field: 'type',
        reason: 'FieldValueInvalid',
        message: 'Invalid value: "example.com/x": field is immutable',
      },
    ])
    expect((await patch(json.metadata.name, { type: null }, secrets)).code).toBe(200)
    expect((await post({ type: 'example.com/x' }, secrets)).json.type).toBe('example.com/x')
  })

  it.each([
    ['data', { data: { password: 'aHVudGVyMg==' } }, 'data'],
    ['stringData', { stringData: { password: 'hunter2' } }, 'stringData'],
  ])('has no %s, by whatever request', async (_, body, field) => {
    const causes = [
      { field, reason: 'FieldValueForbidden', message: expect.stringMatching(/^Forbidden: must be empty: /) },
    ]
    const { json: there } = await post({ data: {}, stringData: {} }, secrets)
    const at = `${secrets}/${there.metadata.name}`
    const whole = { apiVersion: 'v1', kind: 'Secret', metadata: { name: there.metadata.name }, ...body }
    const answers = [
      await post(body, secrets),
      await server.call('PUT', at, whole),
      await patch(there.metadata.name, body, secrets),
      await server.call('PATCH', at, body, { 'content-type': 'application/strategic-merge-patch+json' }),
      await server.call('PATCH', `${at}?fieldManager=x&force=true`, whole, {
        'content-type': 'application/apply-patch+yaml',
      }),
      await server.call('PATCH', at, [{ op: 'add', path: `/${field}`, value: Object.values(body)[0] }], {
        'content-type': 'application/json-patch+json',
      }),
    ]
    for (const { code, json, text } of answers) {
      expect([code, json.details?.causes]).toEqual([422, causes])
      expect(text).not.toMatch(/hunter2|aHVudGVyMg/)
    }
    const { entries } = await server.kv.list('')
    expect(JSON.stringify(entries.map(({ value }) => value))).not.toMatch(/hunter2|aHVudGVyMg/)
  })

  it('may not be of a type that is made of data', async () => {
    const { code, json } = await post({ type: 'kubernetes.io/tls' }, secrets)
    expect([code, json.details.causes[0].field]).toEqual([422, 'type'])
  })

  it('that is immutable stays so', async () => {
    const { json } = await post({ immutable: true }, secrets)
    const { code, json: status } = await patch(json.metadata.name, { immutable: false }, secrets)
    expect([code, status.details.causes[0].field]).toEqual([422, 'immutable'])
  })
})
