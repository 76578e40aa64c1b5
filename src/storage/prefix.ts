import { storageError } from './failure.js'

/** Folder for what is not an object yet (or only for a moment): never listed, cleaned by `sweep`, refused as part of a key. */
export const partialFolder = '.backupd-partial'

const isControl = (code: number): boolean => code < 0x20 || code === 0x7f

// What cannot be put into UTF-8 (half of a surrogate pair) comes back as something else.
const isUnicode = (text: string): boolean => Buffer.from(text).toString() === text

const problemOf = (key: string): string | undefined => {
  if (key === '') return 'it is empty'
  if (!isUnicode(key)) return 'it is not valid Unicode'
  if ([...key].some((letter) => isControl(letter.codePointAt(0) ?? 0))) return 'it has control characters'
  // S3 and GCS allow 1,024 bytes with the prefix; file systems 255 a name.
  if (Buffer.byteLength(key) > 900) return 'it is longer than 900 bytes'
  const names = key.split('/')
  if (names.includes('')) return 'it starts or ends with a slash, or has two in a row'
  if (names.includes('..') || names.includes('.')) return 'it has “.” or “..” as a part'
  if (names.includes(partialFolder)) return `${partialFolder} is reserved`
  if (names.some((name) => Buffer.byteLength(name) > 255)) return 'a part of it is longer than 255 bytes'
  return undefined
}

/** Refuses a key that could escape its storage or that some backend cannot hold (`storage.key_invalid`). */
export const checkKey = (key: string): void => {
  const problem = problemOf(key)
  if (problem !== undefined) throw storageError('storage.key_invalid', `the key ${JSON.stringify(key)} cannot be used: ${problem}`)
}

/** As `checkKey`, for the beginning of keys: empty, a whole name, or cut anywhere. */
export const checkListPrefix = (prefix: string): void => {
  const whole = prefix.replace(/\/$/, '')
  if (prefix !== '' && !/(^|\/)\.{1,2}$/.test(prefix)) checkKey(whole)
  else if (prefix !== '' && prefix.includes('/')) checkKey(prefix.slice(0, prefix.lastIndexOf('/')))
}

/** A configured prefix in its one form: no slash in front, one behind, none doubled; empty stays empty. */
export const normalisePrefix = (prefix: string | undefined): string => {
  const names = (prefix ?? '').split('/').filter((name) => name !== '')
  return names.length === 0 ? '' : `${names.join('/')}/`
}

/** Whether `key` is something unfinished, of this storage or of another one nested in it. */
export const isPartial = (key: string): boolean => key.split('/').includes(partialFolder)
