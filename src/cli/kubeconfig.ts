import { addressOf } from './client.ts'
import { askClusterId } from './cluster-id.ts'
import type { CommandModule } from './command.ts'
import { connectionOf, readCa } from './connection.ts'
import { formatOf } from './options.ts'
import { renderObject } from './output.ts'

export const command: CommandModule<{ readonly output?: string }> = {
  define: (c) => void c.option('-o, --output <format>', 'yaml (default) or json'),
  examples: ['kubeconfig > vmc.yaml  # then: kubectl --kubeconfig vmc.yaml get vms'],
  run: async ({ options }, io) => {
    const format = formatOf(options.output, ['yaml', 'json']) === 'json' ? 'json' : 'yaml'
    const connection = connectionOf(options, io)
    const address = addressOf(connection)
    const name = 'plasmavmc'
    const cluster = {
      server: `https://${address}`,
      'certificate-authority-data': Buffer.from(readCa(connection.dataDir)).toString('base64'),
    }
    const clusterId = await askClusterId(connection, io)
    if (clusterId === undefined)
      io.stderr.write(
        `Note: ${address} did not say which cluster it is; tokens are good wherever their key is.\n`,
      )
    const only = clusterId === undefined ? [] : ['--cluster', clusterId]
    const exec = {
      apiVersion: 'client.authentication.k8s.io/v1',
      command: io.program,
      args: ['token', '--data-dir', connection.dataDir, '--server', address, ...only],
      interactiveMode: 'Never',
      provideClusterInfo: false,
    }
    const { user, groups = [] } = connection.as ?? {}
    const as = { ...(user !== undefined && { as: user }), ...(groups.length > 0 && { 'as-groups': groups }) }
    const context = { cluster: name, user: name, namespace: options.namespace ?? 'default' }
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name, cluster }],
      users: [{ name, user: { exec, ...as } }],
      contexts: [{ name, context }],
      'current-context': name,
    }
    io.stdout.write(await renderObject(config, format))
    return 0
  },
}
