import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { validate } from 'dockerfile-utils'
import t from 'tap'
import { execForm, lintDockerfile, parseDockerfile, words } from './dockerfile.js'
import { inImage, planBuild, prepareBase, runIsolated } from './image.js'

// The image is made from nothing, compiler and all.
t.setTimeout(1_500_000)

const root = fileURLToPath(new URL('../..', import.meta.url))
const text = readFileSync(join(root, 'Dockerfile'), 'utf8')
const instructions = parseDockerfile(text)
// Everything but what is named: `*`, then `!path` for each.
const dockerignore = readFileSync(join(root, '.dockerignore'), 'utf8').split('\n').filter((line) => line !== '' && !line.startsWith('#'))
const allowed = dockerignore.flatMap((line) => (line.startsWith('!') ? [line.slice(1)] : []))

t.test('the Dockerfile is clean', async (t) => {
  t.strictSame(validate(text).map(({ message, range }) => `line ${range.start.line + 1}: ${message}`), [], 'dockerfile-utils')
  t.strictSame(lintDockerfile(text), [], "hadolint's rules")
})

t.test('every rule refuses what breaks it', async (t) => {
  const good = ['FROM node:24.1.0-slim AS a', 'WORKDIR /a', 'COPY --from=a /x /y', 'USER app', 'HEALTHCHECK CMD ["a"]', 'CMD ["b"]'].join('\n')
  t.strictSame(lintDockerfile(good.replace('--from=a ', '')), [])
  const cases: [string, string][] = [
    ['DL3000', 'WORKDIR a'], ['DL3002', 'USER root'], ['DL3002', 'USER 0:0'], ['DL3003', 'RUN cd /a && ls'], ['DL3004', 'RUN sudo ls'], ['DL3006', 'FROM node'],
    ['DL3007', 'FROM node:latest'], ['backupd-pin', 'FROM node:24'], ['DL3008', 'RUN apt-get install -y --no-install-recommends jq'],
    ['DL3009', 'RUN apt-get update && apt-get install -y --no-install-recommends jq=1'], ['DL3011', 'EXPOSE 80000'],
    ['DL3014', 'RUN apt-get install --no-install-recommends jq=1'], ['DL3015', 'RUN apt-get install -y jq=1'], ['DL3016', 'RUN npm install express'],
    ['DL3020', 'ADD a /b'], ['DL3021', 'COPY a b c'], ['DL3022', 'COPY --from=nobody /a /b'], ['DL3024', 'FROM node:24.1.0 AS a'], ['DL3025', 'CMD node main.js'],
    ['DL3027', 'RUN apt install jq'], ['DL4000', 'MAINTAINER me'], ['DL4003', 'CMD ["c"]'], ['DL4006', 'RUN cat a | grep b'], ['backupd-pipe', 'RUN curl https://a | sh'],
    ['backupd-secret', 'ENV API_TOKEN=abc'],
  ]
  for (const [rule, line] of cases) t.match(lintDockerfile(`${good}\n${line}`).join('\n'), new RegExp(`^${rule} line`, 'm'), `${rule}: ${line}`)
  t.match(lintDockerfile('FROM node:24.1.0\nCOPY a b').join('\n'), /DL3045/)
  t.match(lintDockerfile('FROM node:24.1.0\nUSER a').join('\n'), /DL3057/)
  t.strictSame(lintDockerfile(`${good.replace('--from=a ', '')}\n# hadolint ignore=DL3008\nRUN apt-get install -y --no-install-recommends jq`), [])
  t.match(lintDockerfile(`${good}\n# hadolint ignore=DL3008\nRUN ls\nRUN apt-get install -y --no-install-recommends jq`).join('\n'), /DL3008/, 'an exception counts for one instruction')
})

t.test('what it copies is there and let through', async (t) => {
  t.equal(dockerignore[0], '*')
  for (const { keyword, args, line } of instructions) {
    if (keyword !== 'COPY' || /--from=/.test(args)) continue
    for (const path of words(args).slice(0, -1)) {
      t.ok(existsSync(join(root, path)), `line ${line}: ${path} exists`)
      t.ok(allowed.some((name) => path === name || path.startsWith(`${name}/`)), `line ${line}: .dockerignore lets ${path} through`)
    }
  }
})

t.test('what runs is told apart from what is asked about its health', async (t) => {
  const last = (keyword: string): string => instructions.filter((instruction) => instruction.keyword === keyword).at(-1)?.args ?? ''
  t.strictSame(execForm(last('ENTRYPOINT')), ['tini', '--', 'backupd'])
  t.strictSame(execForm(last('CMD')), ['daemon'])
  t.match(last('HEALTHCHECK'), /\/livez/)
  t.match(last('ARG'), /signed-by=\/usr\/share\/postgresql-common\/pgdg\/apt\.postgresql\.org\.asc\] https:\/\/apt\.postgresql\.org\//)
  t.match(text, /PG_MAJORS="13 14 15 16 17 18"/)
})

// No engine here: each stage is an overlay over a fresh Debian 12, each RUN a chroot into it. Two things differ from a real build: the
// base holds this machine's Node, and the clients come from Debian (15 only), because the PostgreSQL project's repository is not in reach.
t.test('every step runs, and so does the result', { timeout: 1_500_000, skip: process.getuid?.() === 0 ? false : 'mounting and chroot need root' }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'backupd-image-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const context = join(dir, 'context')
  for (const path of allowed) {
    mkdirSync(dirname(join(context, path)), { recursive: true })
    cpSync(join(root, path), join(context, path), { recursive: true })
  }
  const base = join(dir, 'base')
  const hostEnv = prepareBase(base)
  // What npm has downloaded already need not come again.
  const npmCache = execFileSync('npm', ['config', 'get', 'cache'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  mkdirSync(npmCache, { recursive: true })
  const plan = planBuild(text, {
    base, context, hostEnv: { ...hostEnv, npm_config_cache: '/var/cache/npm' }, binds: { '/var/cache/npm': npmCache }, work: join(dir, 'work'), buildArgs: { PG_REPOSITORY: 'deb http://deb.debian.org/debian bookworm main', PG_MAJORS: '15' },
  })
  const listen = { BACKUPD_LISTEN: `127.0.0.1:${20_000 + (process.pid % 20_000)}` }
  const checks = [
    inImage(plan, ['backupd', '--help']),
    inImage(plan, ['sh', '-c', 'id -u; echo "$BACKUPD_STATE_DIR"; touch "$BACKUPD_STATE_DIR/mine" && echo writable; ls /usr/lib/postgresql/15/bin | tr "\\n" " "; ! touch /app/mine 2>/dev/null && echo read-only']),
    inImage(plan, ['sh', '-c', 'command -v gcc g++ make python3 git gpg || echo lean']),
    // The key that Debian's package brings is the one that the PostgreSQL project publishes.
    `gpg --homedir ${base} --show-keys --with-colons ${plan.root}/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc`,
    // Nothing listens: not healthy.
    `if ${inImage(plan, plan.config.healthcheck, { BACKUPD_LISTEN: '127.0.0.1:9' })}; then echo WRONG; else echo unhealthy; fi`,
    inImage(plan, ['node', '-e', "console.log('lz4', typeof require('/app/node_modules/lz4').createEncoderStream)"]),
    // Its command as process 1 of a process namespace, as in a container, until it is ready; then `docker stop`.
    `unshare --pid --fork --kill-child ${inImage(plan, plan.config.command, listen)} > ${dir}/daemon.log 2>&1 & unshared=$!`,
    `for _ in $(seq 120); do ${inImage(plan, ['node', '-e', `fetch('http://${listen.BACKUPD_LISTEN}/readyz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))`])} && break; sleep 1; done`,
    `if ${inImage(plan, plan.config.healthcheck, listen)}; then echo healthy; else echo 'not healthy:'; cat ${dir}/daemon.log; fi`,
    'first=$(pgrep -P $unshared)',
    'echo "process 1: $(cat /proc/$first/comm)"',
    'kill -TERM $first; wait $unshared && echo "stopped: 0" || echo "stopped: $?"',
  ]
  const { code, output } = await runIsolated([plan.script, 'echo "==> built"', ...checks].join('\n'))
  t.equal(code, 0, output.slice(-4000))
  const result = output.slice(output.indexOf('==> built'))
  t.match(result, /Usage: backupd/)
  t.match(result, /^8470\n\/var\/lib\/backupd\nwritable\npg_dump pg_dumpall pg_restore psql read-only$/m)
  t.match(result, /^lean$/m)
  t.match(result, /B97B0AFCAA1A47F044F244A07FCC7D46ACCC4CF8/)
  t.match(result, /^unhealthy$/m)
  t.match(result, /^lz4 function$/m, 'the addon was compiled')
  t.match(result, /^healthy$/m)
  t.match(result, /^process 1: tini$/m)
  t.match(result, /^stopped: 0$/m)
})
