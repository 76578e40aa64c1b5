import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { generateX25519Identity, identityToRecipient, Encrypter } from 'age-encryption'
import { BackupdError, messageOf } from '../errors.js'
import { Secret } from '../secret.js'
import { shellWord } from '../shell.js'

/** A new X25519 key: the private half, and the `age1…` text that others encrypt to. */
export const generateIdentity = async (): Promise<{ identity: Secret; recipient: string }> => {
  const identity = new Secret(await generateX25519Identity())
  return { identity, recipient: await recipientOf(identity) }
}

/** The public half of a private key. Fails with `key.identity_invalid`. */
export const recipientOf = async (identity: Secret): Promise<string> => {
  try {
    return await identityToRecipient(identity.reveal())
  } catch {
    // What the package says may hold the text of the key.
    throw new BackupdError('key.identity_invalid', 'this is not an age private key', {
      kind: 'configuration',
      hint: 'A private key is one line that starts with AGE-SECRET-KEY-1.',
    })
  }
}

const hintFor = (text: string): string => {
  if (/^AGE-SECRET-KEY-/i.test(text)) return 'This is a private key. Give its public half, which starts with age1 (age-keygen -y FILE prints it).'
  if (/^(ssh-|age1[a-z]*1)/.test(text)) return 'Only X25519 recipients are supported; make one with `backupd key generate` or age-keygen.'
  return 'A recipient is 62 characters that start with age1; `backupd key generate` and age-keygen print one.'
}

/** `text` without blanks around it when it is an X25519 recipient. Fails with `key.recipient_invalid` (usage). */
export const parseRecipient = (text: string): string => {
  const recipient = text.trim()
  try {
    // Length first: the other kinds of recipient that the package knows are longer, or have a longer prefix.
    if (recipient.length !== 62) throw new Error('wrong length')
    new Encrypter().addRecipient(recipient)
    return recipient
  } catch {
    const shown = /^AGE-SECRET-KEY-/i.test(recipient) ? 'a private key' : JSON.stringify(recipient)
    throw new BackupdError('key.recipient_invalid', `${shown} is not an age recipient`, { kind: 'usage', hint: hintFor(recipient) })
  }
}

/** Tells which set of keys a backup needs: SHA-256, in hex, of the recipients, sorted, one a line. */
export const keyHash = (recipients: readonly string[]): string =>
  createHash('sha256').update([...recipients].sort().join('\n')).digest('hex')

export interface Identities {
  identities: Secret[]
  /** What is unsafe about the files, one sentence each. */
  warnings: string[]
}

const readOne = async (file: string): Promise<Identities> => {
  const failed = (what: string, hint: string, cause?: unknown): BackupdError =>
    new BackupdError('key.identity_file', `the key file ${file} ${what}`, { kind: 'configuration', hint, details: { file }, ...(cause === undefined ? {} : { cause }) })
  let text: string
  let mode: number
  try {
    text = await readFile(file, 'utf8')
    mode = (await stat(file)).mode
  } catch (error) {
    throw failed(`cannot be read: ${messageOf(error)}`, 'Name a file that exists and that this user may read.', error)
  }
  const identities: Secret[] = []
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    const identity = new Secret(line)
    try {
      await recipientOf(identity)
    } catch {
      throw failed(
        `has something else than an age private key in line ${index + 1}`,
        'It holds lines that start with AGE-SECRET-KEY-1, empty lines and comments. A file that age -p encrypted has to be decrypted first.',
      )
    }
    identities.push(identity)
  }
  if (identities.length === 0) throw failed('holds no key', 'Write one with `backupd key generate --out FILE` or age-keygen.')
  // Someone may want it so (a group of operators); it is not ours to refuse.
  const open = (mode & 0o077) !== 0
  return { identities, warnings: open ? [`the key file ${file} can be read by others than its owner; chmod 600 ${shellWord(file)}`] : [] }
}

/** The private keys of key files as age writes them. Fails with `key.identity_file` (configuration), naming file and line, never the content. */
export const readIdentities = async (files: readonly string[]): Promise<Identities> => {
  const all = await Promise.all(files.map(readOne))
  return { identities: all.flatMap(({ identities }) => identities), warnings: all.flatMap(({ warnings }) => warnings) }
}

/** The text of a key file that readIdentities and the age command accept. */
export const identityFileText = (identity: Secret, recipient: string, created: Date): string =>
  `# created: ${created.toISOString()}\n# public key: ${recipient}\n${identity.reveal()}\n`
