import { MemoryNetwork, MemoryRouter } from '../../../src/p2p/router-memory.ts'
import { describeRouter } from '../../helpers/router-conformance.ts'

describeRouter('MemoryRouter', count => {
  const network = new MemoryNetwork()
  const hosts = Array.from({ length: count }, (_, index) => {
    const peerId = `peer-${index}`
    return { peerId, router: new MemoryRouter(network, { peerId }) }
  })
  return Promise.resolve(hosts)
})
