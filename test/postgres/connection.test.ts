import { readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import type { BackupdError } from '../../src/errors.js'
import { describeConnection, parseConnection, withDatabase } from '../../src/postgres/connection.js'
import { toolEnvironment } from '../../src/postgres/environment.js'

const failure = (url: string): BackupdError => {
  try {
    parseConnection(url)
  } catch (error) {
    return error as BackupdError
  }
  throw new Error(`accepted ${url}`)
}

t.test('the forms of a URL that libpq takes', (t) => {
  const { password, ...plain } = parseConnection('postgresql://us%40er:p%3Aw%2F@db.example.org:6543/my%20db?sslmode=verify-full&sslrootcert=/etc/ca.pem&options=-c%20geqo%3Doff')
  t.equal(password?.reveal(), 'p:w/')
  t.same(plain, {
    host: 'db.example.org', port: 6543, user: 'us@er', database: 'my db',
    options: { sslmode: 'verify-full', sslrootcert: '/etc/ca.pem', options: '-c geqo=off' },
  })
  t.match(parseConnection('postgres://me@h'), { host: 'h', port: 5432, database: 'me', password: undefined })
  t.match(parseConnection('postgres://me@/db'), { host: '/var/run/postgresql' })
  t.match(parseConnection('postgres:///db?host=/tmp/x&port=5433&user=me'), { host: '/tmp/x', port: 5433, user: 'me', database: 'db' })
  t.match(parseConnection('postgres://me@%2Ftmp%2Fx:5433/db'), { host: '/tmp/x', port: 5433 })
  t.match(parseConnection('postgres://me@[::1]:1/db'), { host: '::1', port: 1 })
  t.equal(parseConnection('postgres://me:se+cr#t?x@h/db').password?.reveal(), 'se+cr#t?x')
  t.end()
})

t.test('what is wrong is named, without the password', (t) => {
  const cases: [string, RegExp][] = [
    ['host=localhost dbname=x', /postgres:\/\//],
    ['mysql://me:hunter22@h/db', /postgres:\/\//],
    ['postgres://me:hunter22@a,b/db', /more than one host/],
    ['postgres://me:hunter22@h:0/db', /port/],
    ['postgres://me:hunter22@h:123456/db', /port/],
    ['postgres://me:hunter22%@h/db', /password has a %/],
    ['postgres://me:hunter22@h/db?sslmode=maybe', /sslmode/],
    ['postgres://me:hunter22@h/db?pool=3', /pool/],
    ['postgres://me:hunter22@h/db?connect_timeout=soon', /connect_timeout/],
    ['postgres://me:hunter22%0A@h/db', /line break/],
    ['postgres://me:hunter22@h/db?sslrootcert=system&sslmode=require', /verify-full/],
    ['postgres://me:hunter22@::1/db', /port/],
  ]
  for (const [url, expected] of cases) {
    const error = failure(url)
    t.equal(error.code, 'source.url_invalid', url)
    t.match(error.message, expected)
    t.notMatch(JSON.stringify([error.message, error.hint, error.details, error.stack]), /hunter22/)
  }
  t.end()
})

t.test('a description is a URL that means the same connection, without the password', (t) => {
  const text = fc.string({ minLength: 1, unit: 'grapheme' }).filter((value) => !value.includes('\0'))
  const host = fc.constantFrom('localhost', '10.0.0.1', '::1', '/var/run/postgresql', '/tmp/a b')
  fc.assert(fc.property(host, fc.integer({ min: 1, max: 65_535 }), text, text, fc.constantFrom({}, { sslmode: 'require' }, { options: '-c a=b' }), (h, port, user, database, options) => {
    const connection = { host: h, port, user, database, options, password: undefined }
    t.same(parseConnection(describeConnection(connection)), connection)
  }))
  t.end()
})

t.test('tools get PG variables and a private password file, and nothing else that is secret', async (t) => {
  process.env['PGHOST'] = 'elsewhere'
  process.env['PGSERVICE'] = 'elsewhere'
  process.env['BACKUPD_SECRET_KEY'] = 'do not hand on'
  t.teardown(() => {
    for (const name of ['PGHOST', 'PGSERVICE', 'BACKUPD_SECRET_KEY']) delete process.env[name]
  })
  const connection = withDatabase(parseConnection('postgres://me:p%3Aw%5Cx@h:1/db?sslmode=require'), 'other')
  const { env, dispose } = await toolEnvironment(connection)
  t.match(env, { PGHOST: 'h', PGPORT: '1', PGUSER: 'me', PGDATABASE: 'other', PGSSLMODE: 'require', LC_ALL: 'C' })
  t.notOk(env['PGSERVICE'])
  t.notMatch(JSON.stringify(env), /do not hand on|p:w/)
  const file = env['PGPASSFILE'] ?? ''
  t.equal(await readFile(file, 'utf8'), '*:*:*:*:p\\:w\\\\x\n')
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.equal((await stat(dirname(file))).mode & 0o777, 0o700)
  await dispose()
  await t.rejects(stat(dirname(file)))
  await dispose()
})
