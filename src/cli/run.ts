import { openCatalog, type Catalog } from '../catalog/connect.js'
import { readConfig } from '../config.js'
import { messageOf } from '../errors.js'
import { createLog } from '../log.js'
import type { Context } from './context.js'
import type { Output } from './output.js'

interface Surroundings {
  env: NodeJS.ProcessEnv
  out: Output
  signal: AbortSignal
  urgent: AbortSignal
  stderr: NodeJS.WriteStream
}

/** Reads the configuration, runs `action` and closes what it opened, also after a failure. */
export const withContext = async ({ env, out, signal, urgent, stderr }: Surroundings, action: (context: Context) => Promise<void>): Promise<void> => {
  const config = readConfig(env)
  const log = createLog({ level: config.logLevel ?? 'warn', stream: stderr, human: stderr.isTTY })
  let opening: Promise<Catalog> | undefined
  const catalog = (): Promise<Catalog> =>
    (opening ??= openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log, signal }))
  try {
    await action({ config, log, out, signal, urgent, catalog })
  } finally {
    const opened = await opening?.catch(() => undefined)
    await opened?.close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'closing the catalog failed'))
  }
}
