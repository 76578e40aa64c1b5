import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync, readdirSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import { isSealed, loadSecretKey, maskConfig, openSealed, resolveConfig, resolveValue, sealConfig, sealSecret } from '../../src/encryption/secrets.js'
import { BackupdError } from '../../src/errors.js'
import { Secret } from '../../src/secret.js'

const key = new Secret('0123456789abcdef-key')
const other = new Secret('another-key-0123456789')

const failure = async (call: () => unknown): Promise<BackupdError> => {
  try {
    await call()
  } catch (error) {
    if (error instanceof BackupdError) return error
    throw error
  }
  throw new Error('it did not fail')
}

t.test('what is sealed can be opened with its key', async (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => openSealed(sealSecret(new Secret(text), key), key).reveal() === text),
    { numRuns: 50 },
  )
  const one = sealSecret(new Secret('pass word'), key)
  t.not(one.$sealed, sealSecret(new Secret('pass word'), key).$sealed, 'the same secret never looks the same')
  t.match(one.$sealed, /^v1:[A-Za-z0-9+/=]+$/)
  t.notMatch(Buffer.from(one.$sealed.slice(3), 'base64').toString('latin1'), /pass word/)
})

t.test('another key is named as the reason', async (t) => {
  const error = await failure(() => openSealed(sealSecret(new Secret('pass word'), key), other, 'secret_access_key'))
  t.match(error, { code: 'secret.wrong_key', kind: 'configuration', message: /secret_access_key/, hint: /BACKUPD_SECRET_KEY/ })
  t.notMatch(error.message + error.hint, /pass word|0123456789/)
})

t.test('a damaged value is refused wherever it is changed', async (t) => {
  const { $sealed } = sealSecret(new Secret('pass word'), key)
  const bytes = Buffer.from($sealed.slice(3), 'base64')
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Buffer.from(bytes)
    changed[at] = (changed[at] as number) ^ 1
    const error = await failure(() => openSealed({ $sealed: `v1:${changed.toString('base64')}` }, key))
    t.equal(error.code, at < 4 ? 'secret.wrong_key' : 'secret.damaged', `byte ${at}`)
  }
  for (const text of ['', 'v1:', 'v2:' + $sealed.slice(3), $sealed.slice(0, 20)]) {
    t.equal((await failure(() => openSealed({ $sealed: text }, key))).code, 'secret.damaged', text)
  }
})

t.test('a value may stand in the configuration, the environment, a file or sealed', async (t) => {
  const dir = t.testdir({ value: 'from a file\n', crlf: 'two\nlines\r\n' })
  const context = { key, env: { NAME: 'from env', EMPTY: '' }, field: 'password' }
  t.equal(await resolveValue('text', context), 'text')
  t.equal(await resolveValue(5432, context), '5432')
  t.equal(await resolveValue(false, context), 'false')
  t.equal(await resolveValue({ $env: 'NAME' }, context), 'from env')
  t.equal(await resolveValue({ $file: join(dir, 'value') }, context), 'from a file')
  t.equal(await resolveValue({ $file: join(dir, 'crlf') }, context), 'two\nlines')
  t.equal(await resolveValue(sealSecret(new Secret('sealed'), key), context), 'sealed')
  t.equal(await resolveValue(sealSecret(new Secret('sealed'), key), { ...context, key: async () => key }), 'sealed')

  t.match(await failure(() => resolveValue({ $env: 'GONE' }, context)), { code: 'config.env_missing', kind: 'configuration', message: /password.*GONE/ })
  t.match(await failure(() => resolveValue({ $env: 'EMPTY' }, context)), { code: 'config.env_missing' })
  t.match(await failure(() => resolveValue({ $file: join(dir, 'gone') }, context)), { code: 'config.file', kind: 'configuration', message: /password.*gone/ })
  for (const value of [null, {}, [], { $env: 1 }, { $env: 'A', $file: 'B' }, { $other: 'x' }]) {
    t.match(await failure(() => resolveValue(value, context)), { code: 'config.value', message: /password/ })
  }
})

t.test('a configuration is sealed, resolved and shown', async (t) => {
  const secretFields = ['password', 'token', 'private_key', 'absent']
  const config = { host: 'db', port: 22, password: 'very secret', token: { $env: 'TOKEN' }, private_key: null, region: { $env: 'REGION' }, on: true }
  const sealed = sealConfig(config, secretFields, key)
  t.ok(isSealed(sealed['password']))
  t.match(sealed, { host: 'db', port: 22, token: { $env: 'TOKEN' }, private_key: null, region: { $env: 'REGION' }, on: true })
  t.strictSame(sealConfig(sealed, secretFields, key), sealed, 'what is sealed stays as it is')
  t.notMatch(JSON.stringify(sealed), /very secret/)

  const context = { key, env: { TOKEN: 'token of env', REGION: 'eu' } }
  const resolved = await resolveConfig(JSON.parse(JSON.stringify(sealed)) as Record<string, unknown>, secretFields, context)
  t.match(resolved, { host: 'db', port: 22, region: 'eu', on: true, private_key: null })
  t.equal((resolved['password'] as Secret).reveal(), 'very secret')
  t.equal((resolved['token'] as Secret).reveal(), 'token of env')
  const clear = await resolveConfig({ password: 'written by another' }, secretFields, { ...context, key: () => Promise.reject(new Error('no key was needed')) })
  t.equal((clear['password'] as Secret).reveal(), 'written by another')
  t.match(await failure(() => resolveConfig(sealed, secretFields, { ...context, key: other })), { code: 'secret.wrong_key', message: /^password/ })

  for (const shown of [maskConfig(config, secretFields), maskConfig(sealed, secretFields)]) {
    t.strictSame(shown, { ...config, password: '[secret]' })
  }
})

t.test('the key of the state directory is made once, whoever comes first', async (t) => {
  const stateDir = join(mkdtempSync(join(tmpdir(), 'backupd-key-')), 'state')
  t.teardown(() => rmSync(join(stateDir, '..'), { recursive: true, force: true }))
  t.equal((await loadSecretKey({ secretKey: key, stateDir })), key, 'a given key needs no file')
  const script = fileURLToPath(new URL('./load-key.ts', import.meta.url))
  const made = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const child = spawn(process.execPath, [...process.execArgv, script, stateDir], { stdio: ['ignore', 'pipe', 'inherit'] })
      let out = ''
      child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
      await once(child, 'close')
      return out.split('\n').filter((line) => line !== '')
    }),
  )
  const keys = new Set(made.flat())
  t.equal(made.flat().length, 24)
  t.equal(keys.size, 1, 'all found the same key')
  t.equal(Buffer.from(readFileSync(join(stateDir, 'secret.key'), 'utf8'), 'base64').length, 32)
  t.equal(statSync(join(stateDir, 'secret.key')).mode & 0o777, 0o600)
  t.strictSame(readdirSync(stateDir), ['secret.key'], 'no draft is left')
})

t.test('a key file that is of no use is refused, never replaced', async (t) => {
  const stateDir = t.testdir({ 'secret.key': 'short' })
  t.match(await failure(() => loadSecretKey({ secretKey: undefined, stateDir })), { code: 'secret.key_file', kind: 'configuration' })
  t.equal(readFileSync(join(stateDir, 'secret.key'), 'utf8'), 'short')
  writeFileSync(join(stateDir, 'file'), '')
  t.match(await failure(() => loadSecretKey({ secretKey: undefined, stateDir: join(stateDir, 'file') })), { code: 'secret.key_file' })
  chmodSync(join(stateDir, 'secret.key'), 0o600)
})
