import { openCatalog, type Catalog } from '../catalog/connect.js'
import { readConfig } from '../config.js'
import { catalogFailure, sqlStateOf } from '../catalog/failures.js'
import { BackupdError, messageOf } from '../errors.js'
import { createLog } from '../log.js'
import { removeAbandonedFolders } from '../postgres/private-folder.js'
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
  const log = createLog({ level: config.logLevel ?? 'warn', stream: stderr, human: true })
  // What a killed process left, such as the copy of an archive, may be large.
  for (const folder of await removeAbandonedFolders()) log.info({ folder }, 'removed what a process that was killed had left')
  let opening: Promise<Catalog> | undefined
  const catalog = (): Promise<Catalog> =>
    (opening ??= openCatalog({ databaseUrl: config.databaseUrl, stateDir: config.stateDir, log, signal }))
  try {
    await action({ config, log, out, signal, urgent, catalog })
  } catch (error) {
    // What the driver throws lists the values of the statement; a catalog that went away half-way is told in our words.
    if (error instanceof BackupdError || opening === undefined || sqlStateOf(error) === undefined) throw error
    throw catalogFailure(error, (await opening).description)
  } finally {
    const opened = await opening?.catch(() => undefined)
    await opened?.close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'closing the catalog failed'))
  }
}
