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

/** The command that is called, and what is called of it: the first words that are no options. `help X` is about X. */
const calledCommands = (words: readonly string[]): string[] => {
  const plain = words.filter((word) => !word.startsWith('-'))
  return plain[0] === 'help' ? plain.slice(1) : plain
}

/** What help there is on what was called: `backupd source add --help`. */
const seeHelp = (program: Command, called: readonly string[]): string => {
  const path = ['backupd']
  let at: Command | undefined = program
  for (const word of called) {
    at = at.commands.find((command) => command.name() === word)
    if (at === undefined) break
    path.push(word)
  }
  return `See ${path.join(' ')} --help.`
}

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
  const called = calledCommands(words)
  for (const { name, summary, load } of commands) {
    const command = program.command(name).description(summary).copyInheritedSettings(program)
    if (name !== called[0]) continue
    const module = await load()
    module.define(command, (action) => run(program.opts<{ json?: boolean }>().json === true)(action))
  }
  try {
    await program.parseAsync([...words], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return
    if (error.code === 'commander.help') {
      const [first] = called
      const known = commands.some(({ name }) => name === first)
      const message = first === undefined ? 'no command given' : known ? `${first}: what to do is missing` : `unknown command '${first}'`
      throw new BackupdError('usage', message, { kind: 'usage', hint: seeHelp(program, called) })
    }
    throw new BackupdError('usage', error.message.replace(/^error: /, ''), { kind: 'usage', hint: seeHelp(program, called) })
  }
}
