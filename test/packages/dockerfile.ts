/** One instruction of a Dockerfile, its continued lines joined. */
export interface Instruction {
  keyword: string
  args: string
  /** Of its first line, from 1. */
  line: number
  /** Rules that a `# hadolint ignore=` right above it switches off. */
  ignored: string[]
}

/** Splits a Dockerfile into its instructions. Knows comments, continued lines and nothing of here-documents. */
export const parseDockerfile = (text: string): Instruction[] => {
  const instructions: Instruction[] = []
  let ignored: string[] = []
  let open: Instruction | undefined
  text.split('\n').forEach((raw, at) => {
    const comment = /^\s*#\s*(.*)$/.exec(raw)
    if (comment) {
      const rules = /^hadolint ignore=(\S+)$/.exec(comment[1] ?? '')
      if (rules && open === undefined) ignored = (rules[1] ?? '').split(',')
      return
    }
    if (open === undefined && raw.trim() === '') return
    if (open === undefined) {
      const [, keyword = '', rest = ''] = /^\s*(\S+)\s*(.*)$/.exec(raw) ?? []
      open = { keyword: keyword.toUpperCase(), args: rest, line: at + 1, ignored }
      ignored = []
    } else {
      open.args += raw
    }
    if (/\\\s*$/.test(open.args)) {
      open.args = open.args.replace(/\\\s*$/, '')
      return
    }
    open.args = open.args.trim()
    instructions.push(open)
    open = undefined
  })
  return instructions
}

/** Words of an ARG, ENV or COPY; double quotes hold together and are taken off. */
export const words = (args: string): string[] =>
  [...args.matchAll(/(?:"(?:\\.|[^"])*"|[^\s"])+/g)].map(([word]) => word.replace(/"((?:\\.|[^"])*)"/g, '$1'))

/** The list of `["a", "b"]`, undefined when it is anything else. */
export const execForm = (args: string): string[] | undefined => {
  try {
    const list: unknown = JSON.parse(args)
    return Array.isArray(list) ? list.map(String) : undefined
  } catch {
    return undefined
  }
}

const stagesOf = (instructions: Instruction[]): { name: string | undefined; image: string; body: Instruction[] }[] => {
  const stages: ReturnType<typeof stagesOf> = []
  for (const instruction of instructions) {
    if (instruction.keyword === 'FROM') {
      const [image = '', , name] = words(instruction.args)
      stages.push({ name, image, body: [] })
    }
    stages.at(-1)?.body.push(instruction)
  }
  return stages
}

const commandsOf = (args: string): string[] => args.split(/&&|;|\|\||\bdo\b/).map((part) => part.trim())

/** Hadolint's rules that can be told from the text, by hadolint's numbers, and two of our own. Hadolint itself is a program that no package here brings. */
export const lintDockerfile = (text: string): string[] => {
  const instructions = parseDockerfile(text)
  const stages = stagesOf(instructions)
  const found: string[] = []
  const complain = (rule: string, { line, ignored }: Instruction, what: string): void => {
    if (!ignored.includes(rule)) found.push(`${rule} line ${line}: ${what}`)
  }
  const globals = new Map(
    instructions.slice(0, instructions.findIndex(({ keyword }) => keyword === 'FROM')).flatMap(({ args }) => {
      const [name = '', ...value] = args.split('=')
      return [[name, value.join('=')] as const]
    }),
  )
  for (const [at, { image, name, body }] of stages.entries()) {
    const [from] = body
    const earlier = stages.slice(0, at)
    const resolved = image.replace(/\$\{(\w+)\}/g, (_, key: string) => globals.get(key) ?? '')
    if (from !== undefined && !earlier.some((stage) => stage.name === image) && resolved !== 'scratch') {
      if (!/[:@]/.test(resolved)) complain('DL3006', from, `${resolved} has no tag`)
      else if (/:latest$/.test(resolved)) complain('DL3007', from, `${resolved} changes under us`)
      else if (!/:\d+\.\d+\.\d+|@sha256:/.test(resolved)) complain('backupd-pin', from, `${resolved} is no exact release`)
    }
    if (from !== undefined && name !== undefined && earlier.some((stage) => stage.name === name)) complain('DL3024', from, `${name} is there twice`)
    let workdir = false
    for (const instruction of body) {
      const { keyword, args } = instruction
      if (keyword === 'WORKDIR') {
        workdir = true
        if (!/^["']?[/$]/.test(args)) complain('DL3000', instruction, 'WORKDIR is not absolute')
      }
      if (keyword === 'MAINTAINER') complain('DL4000', instruction, 'MAINTAINER is deprecated')
      if (keyword === 'ADD') complain('DL3020', instruction, 'COPY says what it does')
      if (keyword === 'COPY') {
        const flags = words(args).filter((word) => word.startsWith('--'))
        const paths = words(args).filter((word) => !word.startsWith('--'))
        const target = paths.at(-1) ?? ''
        const stage = flags.map((flag) => /^--from=(.*)$/.exec(flag)?.[1]).find((value) => value !== undefined)
        if (paths.length > 2 && !target.endsWith('/')) complain('DL3021', instruction, 'several files go into a folder, which ends in /')
        if (stage !== undefined && !earlier.some((other) => other.name === stage)) complain('DL3022', instruction, `${stage} is no earlier stage`)
        if (!workdir && !/^[/$]/.test(target)) complain('DL3045', instruction, 'COPY to a relative path without WORKDIR')
      }
      if (keyword === 'EXPOSE' && words(args).some((port) => Number.parseInt(port, 10) > 65_535)) complain('DL3011', instruction, 'no such port')
      if ((keyword === 'CMD' || keyword === 'ENTRYPOINT') && execForm(args) === undefined) complain('DL3025', instruction, `${keyword} is a shell's child, which gets no signal`)
      if (keyword === 'ENV' || keyword === 'ARG') {
        for (const word of words(args)) {
          if (/(password|passwd|secret|token|private|identity|_key)\w*=./i.test(word)) complain('backupd-secret', instruction, `${word.split('=')[0]} would be in the image for everybody`)
        }
      }
      if (keyword === 'RUN') {
        const commands = commandsOf(args)
        const installs = commands.filter((command) => /^apt-get\b.*\binstall\b/.test(command))
        if (commands.some((command) => /^sudo\b/.test(command))) complain('DL3004', instruction, 'sudo')
        if (commands.some((command) => /^cd\s/.test(command))) complain('DL3003', instruction, 'cd instead of WORKDIR')
        if (commands.some((command) => /^apt\s/.test(command))) complain('DL3027', instruction, 'apt is for people')
        for (const command of installs) {
          if (!/\s(-y|-qy|--yes|--assume-yes)\b/.test(command)) complain('DL3014', instruction, 'apt-get install asks')
          if (!/--no-install-recommends/.test(command)) complain('DL3015', instruction, 'apt-get install brings what is only recommended')
          const packages = command.replace(/^.*\binstall\b/, '').split(/\s+/).filter((word) => word !== '' && !word.startsWith('-'))
          if (packages.some((word) => !word.includes('='))) complain('DL3008', instruction, 'packages without a version')
        }
        if (/\bapt-get update\b/.test(args) && !/rm -rf \/var\/lib\/apt\/lists\/\*/.test(args)) complain('DL3009', instruction, 'the lists of apt stay behind')
        if (/[^|]\|[^|]/.test(args) && !body.slice(0, body.indexOf(instruction)).some(({ keyword, args }) => keyword === 'SHELL' && args.includes('pipefail'))) {
          complain('DL4006', instruction, 'a pipe hides its first failure')
        }
        if (/\bnpm (install|i)\b/.test(args)) complain('DL3016', instruction, 'npm ci installs what the lock file says')
        if (/\b(curl|wget)\b[^&;]*\|\s*(ba)?sh\b/.test(args)) complain('backupd-pipe', instruction, 'runs what it downloads')
      }
    }
    for (const keyword of ['CMD', 'ENTRYPOINT', 'HEALTHCHECK']) {
      const [, second] = body.filter((instruction) => instruction.keyword === keyword)
      if (second !== undefined) complain({ CMD: 'DL4003', ENTRYPOINT: 'DL4004' }[keyword] ?? 'DL3012', second, `${keyword} is there twice`)
    }
  }
  const last = stages.at(-1)?.body ?? []
  const user = last.filter(({ keyword }) => keyword === 'USER').at(-1)
  const [from] = last
  if (from !== undefined && (user === undefined || /^(root|0)(:|$)/.test(user.args))) complain('DL3002', user ?? from, 'runs as root')
  if (from !== undefined && !last.some(({ keyword }) => keyword === 'HEALTHCHECK')) complain('DL3057', from, 'no HEALTHCHECK')
  return found
}
