import { Command, CommanderError } from 'commander'
import { BackupdError } from '../errors.js'
import { version } from '../version.js'
import type { Run } from './context.js'
import { commands } from './registry.js'

const EXIT_CODES = `
Exit codes:
  0  done
  1  the operation failed
  2  wrong usage
  3  not found
  4  configuration (variables, catalog, tools, storages)
  5  integrity (a backup is damaged)`

// Written by main itself, which knows whether JSON is wanted.
const quiet = { writeErr: () => undefined }

/** The first word that is no option: the command that is called. */
const calledCommand = (words: readonly string[]): string | undefined => words.find((word) => !word.startsWith('-'))

/** Parses the command line and runs the command's action. Wrong usage fails with `usage` (exit code 2); help and version resolve. */
export const runProgram = async (words: readonly string[], run: (json: boolean) => Run): Promise<void> => {
  const program = new Command('backupd')
    .description('Backs up PostgreSQL and gets it back.')
    .version(version, '-V, --version')
    .option('--json', 'one JSON document on stdout, everything else on stderr')
    .addHelpText('after', EXIT_CODES)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput(quiet)
    .showSuggestionAfterError()
    .exitOverride()
  const called = calledCommand(words)
  for (const { name, summary, load } of commands) {
    const command = program.command(name).description(summary).copyInheritedSettings(program)
    if (name !== called) continue
    const module = await load()
    module.define(command, (action) => run(program.opts<{ json?: boolean }>().json === true)(action))
  }
  try {
    await program.parseAsync([...words], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return
    if (error.code === 'commander.help') {
      throw new BackupdError('usage', called === undefined ? 'no command given' : `${called}: what to do is missing`, { kind: 'usage', hint: `See backupd ${called ?? ''} --help.`.replace('  ', ' ') })
    }
    throw new BackupdError('usage', error.message.replace(/^error: /, ''), { kind: 'usage', hint: `See backupd ${commands.some(({ name }) => name === called) ? `${called} ` : ''}--help.` })
  }
}
