import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import type { Test } from 'tap'
import { BackupdError } from '../../src/errors.js'
import { Secret } from '../../src/secret.js'
import type { ByteSource } from '../../src/storage/storage.js'
import { chunkings, collect, failureOf, inPieces, measure, never, noise, rows, shell, tool, watched } from './streams.js'

/** A way of encrypting to public keys that the stock `age` command reads and writes. */
export interface Encryption {
  name: string
  encrypt(source: ByteSource, options: { recipients: readonly string[] }): ByteSource
  decrypt(source: ByteSource, options: { identities: readonly Secret[]; recipients?: readonly string[]; signal: AbortSignal }): ByteSource
  encryptedSize(plainSize: number, recipients: number): number
}

interface Key {
  identity: Secret
  recipient: string
  file: string
}

const CHUNK = 64 * 1024
const MiB = 1024 * 1024

// Keys of the stock tool, so that ours are not only tried against themselves.
const makeKey = (t: Test, name = 'key'): Key => {
  const text = execFileSync('age-keygen', { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const dir = mkdtempSync(join(tmpdir(), 'backupd-age-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  writeFileSync(join(dir, name), text, { mode: 0o600 })
  const identity = /^AGE-SECRET-KEY-1.*$/m.exec(text)?.[0] as string
  return { identity: new Secret(identity), recipient: /age1\w+/.exec(text)?.[0] as string, file: join(dir, name) }
}

/** The suite that every encryption has to pass. */
export const encryptionSuite = (t: Test, subject: Encryption): void => {
  const seal = (plain: Buffer, recipients: readonly string[], sizes?: readonly number[]): Promise<Buffer> =>
    collect(subject.encrypt(inPieces(plain, sizes), { recipients }))
  const open = (sealed: Buffer, identity: Secret, sizes?: readonly number[]): Promise<Buffer> =>
    collect(subject.decrypt(inPieces(sealed, sizes), { identities: [identity], signal: never }))
  const age = (key: Key, sealed: Buffer): Promise<Buffer> => tool(['age', '-d', '-i', key.file], inPieces(sealed))

  t.test(subject.name, async (t) => {
    const key = makeKey(t)
    const headerLength = (sealed: Buffer): number => sealed.indexOf('\n', sealed.indexOf('\n--- ') + 1) + 1

    t.test('both ways with the age command, around the size of a chunk', async (t) => {
      for (const length of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 16 * CHUNK, 16 * CHUNK + 1, 5 * MiB + 17]) {
        const plain = noise(length)
        const sealed = await seal(plain, [key.recipient])
        t.equal(sealed.length, subject.encryptedSize(length, 1), `${length} bytes: the size is as computed`)
        t.ok((await age(key, sealed)).equals(plain), `${length} bytes: age reads ours`)
        t.ok((await open(sealed, key.identity)).equals(plain), `${length} bytes: we read ours`)
        const stock = await tool(['age', '-r', key.recipient], inPieces(plain))
        t.ok((await open(stock, key.identity)).equals(plain), `${length} bytes: we read age's`)
      }
    })

    t.test('however the streams are cut', async (t) => {
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: 4 * CHUNK }), chunkings, chunkings, async (length, before, after) => {
          const plain = rows(length)
          return (await open(await seal(plain, [key.recipient], before), key.identity, after)).equals(plain)
        }),
        { numRuns: 40 },
      )
      const plain = rows(CHUNK + 100)
      t.ok((await open(await seal(plain, [key.recipient], [1]), key.identity, [1])).equals(plain), 'byte by byte')
    })

    t.test('each of several recipients can read it, and nobody else', async (t) => {
      const [second, stranger] = [makeKey(t, 'second'), makeKey(t, 'stranger')]
      const plain = rows(100_000)
      const recipients = [key.recipient, second.recipient]
      const sealed = await seal(plain, recipients)
      t.equal(sealed.length, subject.encryptedSize(plain.length, 2))
      for (const { identity, file, recipient } of [key, second]) {
        t.ok((await open(sealed, identity)).equals(plain), recipient)
        t.ok((await age({ identity, file, recipient }, sealed)).equals(plain), `${recipient}, by age`)
      }
      const both = await collect(subject.decrypt(inPieces(sealed), { identities: [stranger.identity, second.identity], signal: never }))
      t.ok(both.equals(plain), 'one of the keys at hand is enough')

      const error = await failureOf(() => collect(subject.decrypt(inPieces(sealed), { identities: [stranger.identity], recipients, signal: never })))
      t.match(error, { code: 'encryption.no_identity', kind: 'configuration', hint: /BACKUPD_IDENTITY_FILE/ })
      for (const recipient of recipients) t.ok(error.message.includes(recipient), 'who can read it is named')
      t.notMatch(error.message + error.hint, /AGE-SECRET-KEY/)
      t.match(await failureOf(() => collect(subject.decrypt(inPieces(sealed), { identities: [], signal: never }))), { code: 'encryption.no_identity' })
    })

    t.test('nothing is encrypted to nobody, or to what is not a key', async (t) => {
      t.match(await failureOf(() => seal(Buffer.from('x'), [])), { code: 'encryption.no_recipient' })
      t.match(await failureOf(() => seal(Buffer.from('x'), [key.recipient, 'age1nonsense'])), { code: 'key.recipient_invalid' })
    })

    t.test('the same bytes never look the same', async (t) => {
      const plain = rows(1000)
      const [one, other] = [await seal(plain, [key.recipient]), await seal(plain, [key.recipient])]
      t.notOk(one.subarray(headerLength(one)).equals(other.subarray(headerLength(other))))
      t.notOk(one.includes(plain.subarray(0, 50)))
    })

    const damaged = async (bytes: Buffer): Promise<boolean> => {
      try {
        await open(bytes, key.identity)
        return false
      } catch (error) {
        // A change in the stanza of the only recipient looks like a file for somebody else.
        if (error instanceof BackupdError) return error.code === 'encryption.corrupt' || error.code === 'encryption.no_identity'
        throw error
      }
    }

    t.test('what ends early is damaged, wherever it ends', async (t) => {
      const small = await seal(rows(500), [key.recipient])
      for (let length = 0; length < small.length; length += 1) {
        const error = await failureOf(() => open(small.subarray(0, length), key.identity))
        if (error.code !== 'encryption.corrupt' || error.kind !== 'integrity') t.fail(`${length} bytes: ${error.code}`)
      }
      const large = await seal(rows(3 * CHUNK), [key.recipient])
      const header = headerLength(large)
      const ends = [1, 2, 3].flatMap((chunks) => [-1, 0, 1, 16, 17].map((more) => header + 16 + chunks * (CHUNK + 16) + more))
      for (const end of ends.filter((end) => end < large.length)) t.ok(await damaged(large.subarray(0, end)), `cut at ${end} of ${large.length}`)
    })

    t.test('a flipped bit is noticed everywhere', async (t) => {
      const sealed = await seal(rows(300), [key.recipient])
      for (let at = 0; at < sealed.length; at += 1) {
        const changed = Buffer.from(sealed)
        changed[at] = (changed[at] as number) ^ (1 << at % 8)
        if (!(await damaged(changed))) t.fail(`byte ${at} of ${sealed.length} can be changed unseen`)
      }
      t.notOk(await damaged(sealed), 'the unchanged is not damaged')
    })

    t.test('chunks that are reordered, repeated, left out, or followed by more', async (t) => {
      const sealed = await seal(noise(3 * CHUNK + 100), [key.recipient])
      const start = headerLength(sealed) + 16
      const head = sealed.subarray(0, start)
      const chunk = (index: number): Buffer => sealed.subarray(start + index * (CHUNK + 16), Math.min(sealed.length, start + (index + 1) * (CHUNK + 16)))
      const orders = [[1, 0, 2, 3], [0, 0, 1, 2, 3], [0, 2, 3], [0, 1, 2], [3], [0, 1, 2, 3, 3], [0, 1, 3, 2], []]
      for (const order of orders) t.ok(await damaged(Buffer.concat([head, ...order.map(chunk)])), order.join(' '))
      t.notOk(await damaged(Buffer.concat([head, ...[0, 1, 2, 3].map(chunk)])))
      for (const garbage of [Buffer.from([0]), Buffer.alloc(16), noise(CHUNK + 16), sealed]) t.ok(await damaged(Buffer.concat([sealed, garbage])))
      // The specification allows an empty last chunk only when there is nothing else.
      for (const bytes of [Buffer.alloc(0), rows(5000), Buffer.from('age-encryption.org/v1\n'), Buffer.alloc(200_000, 'age-encryption.org/v1\n-> X25519 x\n')]) {
        t.match(await failureOf(() => open(bytes, key.identity)), { code: 'encryption.corrupt', kind: 'integrity', hint: /\w/ })
      }
    })

    t.test('nothing is given before it is authenticated', async (t) => {
      const plain = noise(40 * CHUNK)
      const sealed = await seal(plain, [key.recipient])
      const changed = Buffer.from(sealed)
      changed[sealed.length - 5] = (changed[sealed.length - 5] as number) ^ 1
      const got: Buffer[] = []
      const error = await failureOf(async () => {
        for await (const piece of subject.decrypt(inPieces(changed), { identities: [key.identity], signal: never })) got.push(Buffer.from(piece))
      })
      t.equal(error.code, 'encryption.corrupt')
      const given = Buffer.concat(got)
      t.ok(given.length <= 39 * CHUNK && given.equals(plain.subarray(0, given.length)))
    })

    t.test('more than 100 MB in flat memory, in large buffers', async (t) => {
      const command = 'seq 1 16000000'
      const expected = await measure(shell(command))
      const sealed = await measure(subject.encrypt(shell(command), { recipients: [key.recipient] }))
      t.equal(sealed.bytes, subject.encryptedSize(expected.bytes, 1))
      t.ok(sealed.grown < 90 * MiB, `encrypting: ${Math.round(sealed.grown / MiB)} MiB`)
      t.ok(sealed.largest >= MiB && sealed.largest < 2 * MiB, `buffers of ${sealed.largest} bytes`)
      const opened = await measure(subject.decrypt(shell(`${command} | age -r ${key.recipient}`), { identities: [key.identity], signal: never }))
      t.equal(opened.sha256, expected.sha256)
      t.ok(opened.grown < 90 * MiB, `decrypting: ${Math.round(opened.grown / MiB)} MiB`)
      t.ok(opened.largest >= MiB && opened.largest < 2 * MiB, `buffers of ${opened.largest} bytes`)
    })

    t.test('a reader that stops, an abort and an error of the source', async (t) => {
      const plain = noise(3 * MiB)
      const sealed = await seal(plain, [key.recipient])
      for (const stream of [
        (source: ByteSource): ByteSource => subject.encrypt(source, { recipients: [key.recipient] }),
        (source: ByteSource): ByteSource => subject.decrypt(source, { identities: [key.identity], signal: never }),
      ]) {
        const stopped = watched([sealed], 'wait')
        for await (const piece of stream(stopped.source)) if (piece.length > 0) break
        t.ok(stopped.closed(), 'the source is closed')
        const failure = new BackupdError('storage.reset', 'the connection was reset')
        t.equal(await failureOf(() => collect(stream(watched([sealed.subarray(0, 200_000)], failure).source))), failure)
      }
      const waiting = watched([sealed.subarray(0, 200_000)], 'wait')
      const controller = new AbortController()
      setTimeout(() => controller.abort(), 50)
      const { signal } = controller
      t.match(await failureOf(() => collect(subject.decrypt(waiting.source, { identities: [key.identity], signal }))), { code: 'cancelled' })
      t.ok(waiting.closed())
    })
  })
}
