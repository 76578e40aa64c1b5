import type { Command } from 'commander'
import { open } from 'node:fs/promises'
import { resolve } from 'node:path'
import { asBackupdError, BackupdError } from '../errors.js'
import { configurationYaml, exportConfiguration } from '../operation/apply/export.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'

interface Options {
  out?: string
  force?: boolean
}

const writeNew = async (file: string, text: string, force: boolean): Promise<void> => {
  try {
    const handle = await open(file, force ? 'w' : 'wx', 0o644)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new BackupdError('export.file_exists', `${file} is there already`, { hint: 'Say --force to write over it, or name another file.' })
    }
    throw asBackupdError(error, 'export.file', `the configuration could not be written to ${file}`, { hint: 'Name a file in a folder that this user may write to.' })
  }
}

const exported = async (context: Context, { out, force = false }: Options): Promise<void> => {
  const configuration = await exportConfiguration(await environmentOf(context))
  for (const warning of configuration.warnings) context.log.warn(warning)
  const { document, variables } = configuration
  if (out === undefined) return context.out.result(document, () => configurationYaml(configuration).trimEnd())
  const file = resolve(out)
  await writeNew(file, file.endsWith('.json') ? `${JSON.stringify(document, null, 2)}\n` : configurationYaml(configuration), force)
  context.out.result({ file, variables }, () => [`configuration written to ${file}`, ...(variables.length === 0 ? [] : [`To apply it to another catalog, set ${variables.join(', ')}.`])].join('\n'))
}

/** `backupd export`. */
export const define = (command: Command, run: Run): void => {
  command.option('--out <file>', 'a new file; JSON when its name ends in .json, else YAML (default: standard output)')
    .option('--force', 'write over the file')
    .addHelpText('after', `
Secrets are not written: in their place stands {$seal: {$env: NAME}}. Applied to this catalog, they stay as they are; applied to another one, they are
taken from the variables of these names.`)
    .action((options: Options) => run((context) => exported(context, options)))
}
