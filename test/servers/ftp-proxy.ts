import type { FtpServer } from './proftpd.js'
import { startProxy, type Faults, type Proxy } from './proxy.js'

/** Where the proxy of an FTP server listens; the server itself is on 127.0.0.1. */
export const ftpProxyHost = '127.0.0.2'

/**
 * Proxies in front of an FTP server: one for the control connection, and one for every port of data connections, under the same number on
 * another address, so that what the server says in its answers (which may be encrypted) is right there too. A cut after more than a few
 * kilobytes is meant for the data, one at the first byte for whatever comes first.
 */
export const startFtpProxy = async ({ ports: [control = 0, ...data] }: FtpServer, seed = 1): Promise<Proxy> => {
  const front = await startProxy({ port: control, seed, listen: { host: ftpProxyHost, port: 0 } })
  const back = await Promise.all(data.map((port) => startProxy({ port, seed: seed + port, listen: { host: ftpProxyHost, port } })))
  const all = [front, ...back]
  const sum = (count: (proxy: Proxy) => number): number => all.reduce((total, proxy) => total + count(proxy), 0)
  return {
    port: front.port,
    set: (faults: Faults) => {
      const { cut, ...rest } = faults
      const talk = cut !== undefined && cut.after < 20_000 && cut.after % 2 === 1
      front.set(cut === undefined || cut.after === 0 ? faults : talk ? { ...rest, cut: { ...cut, after: cut.after % 3_000 } } : rest)
      for (const proxy of back) proxy.set(talk ? rest : faults)
    },
    connections: () => sum((proxy) => proxy.connections()),
    hurt: () => sum((proxy) => proxy.hurt()),
    stop: async () => void (await Promise.all(all.map((proxy) => proxy.stop()))),
  }
}
