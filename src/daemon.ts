import type { Config } from './config.ts'
export interface ReadyInfo { readonly peerId: string, readonly addresses: readonly string[], readonly socket: string, readonly dataDir: string }
export async function runDaemon(config: Config, hooks: { onReady: (info: ReadyInfo) => void }): Promise<number> {
  const { createControlServer } = await import('./control/server.ts')
  const { fakeTasks } = await import('../test/helpers/fake-tasks.ts')
  const { silentLogger } = await import('./log.ts')
  const server = createControlServer({ tasks: fakeTasks(), logger: silentLogger }, { socket: config.socket })
  await server.start()
  hooks.onReady({ peerId: '12D3', addresses: ['/ip4/127.0.0.1/tcp/1'], socket: config.socket, dataDir: config.dataDir })
  await new Promise(resolve => { process.once('SIGINT', resolve); process.once('SIGTERM', resolve) })
  await server.stop()
  return 0
}
