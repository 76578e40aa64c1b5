import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { generateIdentity, identityFileText, keyHash, parseRecipient, readIdentities, recipientOf } from '../../src/encryption/keys.js'
import { Secret } from '../../src/secret.js'
import { failureOf } from '../conformance/streams.js'

t.test('a key that the age command takes', async (t) => {
  const dir = t.testdir({})
  const { identity, recipient } = await generateIdentity()
  t.match(recipient, /^age1[a-z0-9]{58}$/)
  const file = join(dir, 'key')
  const text = identityFileText(identity, recipient, new Date('2026-11-23T02:00:00Z'))
  t.match(text, `# public key: ${recipient}`)
  writeFileSync(file, text, { mode: 0o600 })
  t.equal(execFileSync('age-keygen', ['-y', file], { encoding: 'utf8' }).trim(), recipient)
  t.equal(await recipientOf(identity), recipient)
  t.notMatch(`${String(identity)}${JSON.stringify({ identity })}`, /AGE-SECRET/)
  const read = await readIdentities([file])
  t.strictSame(read.identities.map((found) => found.reveal()), [identity.reveal()])
  t.strictSame(read.warnings, [])
})

t.test('what age-keygen writes is read, with blanks, comments and several keys', async (t) => {
  const made = [0, 1].map(() => execFileSync('age-keygen', { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
  const dir = t.testdir({ both: `\r\n# mine\r\n${made[0]}\n   \n${made[1]}`, one: made[0] as string })
  for (const name of ['both', 'one']) chmodSync(join(dir, name), 0o600)
  const { identities, warnings } = await readIdentities([join(dir, 'both'), join(dir, 'one')])
  t.equal(identities.length, 3)
  t.strictSame(warnings, [])
  t.equal(await recipientOf(identities[0] as Secret), /age1\w+/.exec(made[0] as string)?.[0])
})

t.test('a file that others can read is warned of', async (t) => {
  const { identity, recipient } = await generateIdentity()
  const dir = t.testdir({ key: identityFileText(identity, recipient, new Date()) })
  for (const [mode, warned] of [[0o600, false], [0o400, false], [0o640, true], [0o604, true]] as const) {
    chmodSync(join(dir, 'key'), mode)
    const { warnings } = await readIdentities([join(dir, 'key')])
    t.equal(warnings.length, warned ? 1 : 0, mode.toString(8))
    if (warned) t.match(warnings[0], /chmod 600/)
  }
})

t.test('a file that is no key file is refused, with the line and without its content', async (t) => {
  const { identity } = await generateIdentity()
  const broken = identity.reveal().replace(/.$/, (last) => (last === 'Q' ? 'P' : 'Q'))
  const dir = t.testdir({ wrong: '# comment\n\nhunter2-password\n', broken: `${broken}\n`, empty: '# nothing\n' })
  for (const [name, message] of [['wrong', /wrong .*line 3/], ['broken', /broken .*line 1/], ['empty', /empty holds no key/], ['absent', /absent cannot be read/]] as const) {
    const error = await failureOf(() => readIdentities([join(dir, name)]))
    t.match(error, { code: 'key.identity_file', kind: 'configuration', message, hint: /\w/ })
    t.notMatch(error.message, /hunter2|AGE-SECRET-KEY-1./)
  }
  t.match(await failureOf(() => recipientOf(new Secret('AGE-SECRET-KEY-1NONSENSE'))), { code: 'key.identity_invalid' })
})

t.test('a recipient is checked before it is used', async (t) => {
  const { identity, recipient } = await generateIdentity()
  t.equal(parseRecipient(` ${recipient}\n`), recipient)
  const changed = recipient.replace(/.$/, (last) => (last === 'q' ? 'p' : 'q'))
  for (const text of ['', 'age1', changed, recipient.slice(0, -1), `${recipient}x`, 'ssh-ed25519 AAAA', identity.reveal(), recipient.toUpperCase()]) {
    const error = await failureOf(async () => parseRecipient(text))
    t.match(error, { code: 'key.recipient_invalid', kind: 'usage', hint: /\w/ }, text === identity.reveal() ? 'a private key' : text)
    t.notMatch(error.message + error.hint, identity.reveal())
  }
})

t.test('the hash of keys does not depend on their order', async (t) => {
  t.equal(keyHash(['age1b', 'age1a']), createHash('sha256').update('age1a\nage1b').digest('hex'))
  t.equal(keyHash(['age1b', 'age1a']), keyHash(['age1a', 'age1b']))
})
