import { afterAll, afterEach } from 'vitest'
import { objectsContract } from '../contract/objects.ts'
import { KubeServers } from '../fakes/kube-server.ts'
import { OutsideKube } from '../fakes/outside-kube.ts'

const { PLASMAVMC_TEST_KUBECONFIG: kubeconfig = '' } = process.env

if (kubeconfig === '') {
  const servers = new KubeServers()
  afterEach(() => servers.closeAll())
  afterAll(() => servers.end())
  // Our own server, over HTTPS with a bearer token, as another PlasmaVMC's agent sees it.
  objectsContract('kubernetes', {
    open: async ({ limit } = {}) => {
      const server = await servers.start(limit === undefined ? {} : { historyLimit: limit })
      return server.open()
    },
    restoresUids: true,
  })
} else {
  const outside = new OutsideKube(kubeconfig)
  afterAll(() => outside.close())
  objectsContract(`kubernetes of ${kubeconfig}`, {
    open: () => outside.open(),
    restoresUids: false,
    foreign: true,
  })
}
