import type postgres from 'postgres'
import { openPool } from '../postgres/driver.js'
import type { Secret } from '../secret.js'

export type Sql = postgres.Sql<{ bigint: number }>

/** `postgres://user@host:5432/database`: what of a URL may be shown. */
export const describeUrl = (url: Secret): string => {
  const { protocol, username, host, pathname, searchParams } = new URL(url.reveal())
  const user = username === '' ? '' : `${username}@`
  return `${protocol}//${user}${searchParams.get('host') ?? host}${pathname}`
}

// libpq takes the host, which may be a socket's directory, and the port as parameters too; the driver would send them on as settings.
const withoutHost = (text: string): { url: string; host: string | undefined; port: string | undefined } => {
  const url = new URL(text)
  const host = url.searchParams.get('host') ?? undefined
  const port = url.searchParams.get('port') ?? undefined
  url.searchParams.delete('host')
  url.searchParams.delete('port')
  return { url: url.href, host, port }
}

/** A pool of up to `max` connections, opened when first used. Times are UTC, bigint columns are numbers, notices are silent. */
export const connectTo = (target: Secret, max: number, options: { idle?: number; name?: string; onclose?: () => void } = {}): Sql => {
  const { url, host, port } = withoutHost(target.reveal())
  return openPool<{ bigint: number }>({
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port: Number(port) }),
    max,
    connect_timeout: 10,
    // Seconds; a command's connections end with it, a daemon's give their place back when there is nothing to do.
    idle_timeout: options.idle ?? 60,
    connection: { application_name: options.name ?? 'backupd', TimeZone: 'UTC' },
    onnotice: () => undefined,
    // The driver asks for them behind our back, and when the server goes away meanwhile, nobody catches that. No column of ours is an array.
    // Without it, the driver's `reserve()` never answers on a connection that is yet to be opened: a pool of one serves instead.
    fetch_types: false,
    ...(options.onclose === undefined ? {} : { onclose: options.onclose }),
    types: { bigint: { to: 20, from: [20], parse: (text: string) => Number(text), serialize: (value: number) => String(value) } },
  }, url)
}
