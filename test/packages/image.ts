import { execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { execForm, parseDockerfile, words, type Instruction } from './dockerfile.js'

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** What the last stage leaves for its container. */
export interface ImageConfig {
  env: Record<string, string>
  user: string
  workdir: string
  /** Entry point and command together. */
  command: string[]
  healthcheck: string[]
}

export interface Build {
  /** A shell script that carries the build out, in mount and process namespaces of its own. */
  script: string
  config: ImageConfig
  /** Where the last stage's root folder is mounted while the script runs. */
  root: string
}

const substitute = (text: string, values: Record<string, string>): string => text.replace(/\$\{(\w+)\}|\$(\w+)/g, (whole, a?: string, b?: string) => values[a ?? b ?? ''] ?? whole)

const chroot = (root: string, env: Record<string, string>, workdir: string, user: string | undefined, command: string): string => {
  const assignments = Object.entries({ PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', ...env }).map(([key, value]) => quote(`${key}=${value}`))
  const account = user === undefined ? '' : `--userspec=${user}:${user} `
  return `chroot ${account}${root} env -i -C ${quote(workdir)} ${assignments.join(' ')} ${command}`
}

/** A command line that runs `command` in the built image as its container would. */
export const inImage = (build: Build, command: string[], env: Record<string, string> = {}): string =>
  chroot(build.root, { ...build.config.env, HOME: build.config.workdir, ...env }, build.config.workdir, build.config.user, command.map(quote).join(' '))

/**
 * Turns a Dockerfile into a script that does what its instructions say, since there is no container engine here: each stage is an
 * overlay over `base`, each RUN a chroot into it. `work` holds the overlays; `context` is what .dockerignore lets through.
 */
export const planBuild = (text: string, { base, work, context, buildArgs, hostEnv, binds }: {
  base: string
  work: string
  context: string
  buildArgs: Record<string, string>
  /** What the machine's own set-up asks for, such as where npm finds Node's headers. */
  hostEnv: Record<string, string>
  /** Folders of this machine, by where every stage sees them. */
  binds: Record<string, string>
}): Build => {
  const lines: string[] = ['set -eu']
  const roots = new Map<string, string>()
  let stage = -1
  let root = ''
  let values: Record<string, string> = {}
  let env: Record<string, string> = {}
  let workdir = '/'
  const config: ImageConfig = { env: {}, user: 'root', workdir: '/', command: [], healthcheck: [] }
  let entrypoint: string[] = []
  let command: string[] = []

  const from = ({ args }: Instruction): void => {
    stage += 1
    const [, , name] = words(args)
    const dir = join(work, `stage-${stage}`)
    root = join(dir, 'root')
    roots.set(name ?? String(stage), root)
    values = {}
    env = {}
    workdir = '/'
    lines.push(
      `mkdir -p ${dir}/upper ${dir}/scratch ${root}`,
      `mount -t overlay overlay -o lowerdir=${base},upperdir=${dir}/upper,workdir=${dir}/scratch ${root}`,
      `mount -t proc proc ${root}/proc`,
      `mount --rbind /dev ${root}/dev`,
      ...Object.entries(binds).map(([inside, outside]) => `mkdir -p ${root}${inside} && mount --bind ${outside} ${root}${inside}`),
    )
  }
  const copy = ({ args }: Instruction): void => {
    const parts = words(args)
    const fromStage = parts.map((part) => /^--from=(.*)$/.exec(part)?.[1]).find((name) => name !== undefined)
    const paths = parts.filter((part) => !part.startsWith('--'))
    const target = paths.pop() ?? ''
    const source = fromStage === undefined ? context : (roots.get(fromStage) ?? '')
    const absolute = target.startsWith('/') ? target : join(workdir, target, target.endsWith('/') ? '/' : '')
    const into = `${root}${absolute}`
    for (const path of paths) {
      const origin = join(source, path)
      lines.push(
        `if [ -d ${origin} ]; then mkdir -p ${into} && cp -a --no-preserve=ownership ${origin}/. ${into}/`,
        `else mkdir -p ${target.endsWith('/') ? into : dirname(into)} && cp -a --no-preserve=ownership ${origin} ${into}; fi`,
      )
    }
  }
  const handlers: Record<string, (instruction: Instruction) => void> = {
    FROM: from,
    COPY: copy,
    ARG: ({ args }) => {
      for (const word of words(args)) {
        const at = word.indexOf('=')
        const name = at < 0 ? word : word.slice(0, at)
        const value = buildArgs[name] ?? (at < 0 ? undefined : word.slice(at + 1))
        if (value !== undefined) values[name] = value
      }
    },
    ENV: ({ args }) => {
      for (const word of words(args)) {
        const at = word.indexOf('=')
        env[word.slice(0, at)] = substitute(word.slice(at + 1), { ...values, ...env })
      }
    },
    WORKDIR: ({ args }) => {
      workdir = substitute(args, { ...values, ...env })
      lines.push(`mkdir -p ${root}${workdir}`)
    },
    RUN: ({ args }) => void lines.push(chroot(root, { ...hostEnv, ...values, ...env }, workdir, undefined, `/bin/sh -c ${quote(args)}`)),
    USER: ({ args }) => void (config.user = args),
    ENTRYPOINT: ({ args }) => void (entrypoint = execForm(args) ?? []),
    CMD: ({ args }) => void (command = execForm(args) ?? []),
    HEALTHCHECK: ({ args }) => void (config.healthcheck = execForm(args.replace(/^.*?\bCMD\s+/, '')) ?? []),
    VOLUME: () => undefined,
    EXPOSE: () => undefined,
    STOPSIGNAL: () => undefined,
  }
  for (const instruction of parseDockerfile(text)) {
    const { keyword, args, line } = instruction
    if (stage < 0 && keyword !== 'FROM') continue
    const handler = handlers[keyword]
    if (handler === undefined) throw new Error(`line ${line}: ${keyword} is not known here`)
    lines.push(`echo ${quote(`--> line ${line}: ${keyword} ${args.slice(0, 100)}`)}`)
    handler(instruction)
  }
  config.env = env
  config.workdir = workdir
  config.command = [...entrypoint, ...command]
  return { script: lines.join('\n'), config, root }
}

/** Stand-in for the base image: Debian 12 as debootstrap makes it, with this machine's Node and npm. Gives what npm needs in its environment there. */
export const prepareBase = (base: string): Record<string, string> => {
  execFileSync('debootstrap', ['--variant=minbase', 'bookworm', base, 'http://deb.debian.org/debian'], { stdio: ['ignore', 'ignore', 'pipe'] })
  const prefix = dirname(dirname(process.execPath))
  cpSync(process.execPath, join(base, 'usr/local/bin/node'))
  const npm = [join(prefix, 'lib/node_modules/npm'), '/usr/lib/node_modules/npm', '/usr/share/nodejs/npm'].find((path) => existsSync(path))
  if (npm === undefined) throw new Error(`no npm beside ${process.execPath}`)
  cpSync(npm, join(base, 'usr/local/lib/node_modules/npm'), { recursive: true, dereference: true })
  execFileSync('ln', ['-s', '../lib/node_modules/npm/bin/npm-cli.js', join(base, 'usr/local/bin/npm')])
  const headers = join(prefix, 'include/node')
  if (existsSync(headers)) cpSync(headers, join(base, 'usr/local/include/node'), { recursive: true })
  execFileSync('chroot', [base, 'sh', '-c', 'apt-get update && apt-get install -y --no-install-recommends libstdc++6'], { stdio: ['ignore', 'ignore', 'pipe'] })
  writeFileSync(join(base, 'etc/resolv.conf'), readFileSync('/etc/resolv.conf'))
  const env: Record<string, string> = existsSync(headers) ? { npm_config_nodedir: '/usr/local' } : {}
  const authorities = process.env['NODE_EXTRA_CA_CERTS']
  if (authorities !== undefined && existsSync(authorities)) {
    env['NODE_EXTRA_CA_CERTS'] = '/usr/local/share/machine-authorities.crt'
    cpSync(authorities, join(base, env['NODE_EXTRA_CA_CERTS']), { dereference: true })
  }
  const npmrc = join(process.env['HOME'] ?? '/root', '.npmrc')
  if (existsSync(npmrc)) writeFileSync(join(base, 'root/.npmrc'), readFileSync(npmrc, 'utf8').replace(/^(nodedir|cache|prefix)=.*$/gm, ''), { mode: 0o600 })
  return env
}

/** Runs a script as root of its own mount and process namespaces; whatever it mounts or leaves running is gone when it ends. */
export const runIsolated = (script: string, signal?: AbortSignal): Promise<{ code: number | null; output: string }> =>
  new Promise((resolve, reject) => {
    const child = spawn('unshare', ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-s'], {
      stdio: ['pipe', 'pipe', 'pipe'], ...(signal === undefined ? {} : { signal }),
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, output }))
    child.stdin.end(script)
  })
