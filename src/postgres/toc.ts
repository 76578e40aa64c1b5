import { BackupdError } from '../errors.js'
import type { ByteSource } from '../storage/storage.js'

/** One entry of an archive's table of contents, as pg_dump wrote it. */
export interface ArchiveEntry {
  id: number
  /** What it is, such as `TABLE`, `TABLE DATA`, `INDEX`, `FK CONSTRAINT`. */
  type: string
  /** Empty where it has none. */
  schema: string
  /** Its name; for what belongs to a table, the table's name, a space and its own. */
  tag: string
  owner: string
  /** The SQL that makes it. */
  definition: string
  /** Ids of the entries it depends on. */
  needs: number[]
}

export interface ArchiveContents {
  database: string
  /** Versions as text, of the server that was dumped and of pg_dump. */
  serverVersion: string
  dumpVersion: string
  entries: ArchiveEntry[]
}

const damaged = (reason: string): BackupdError =>
  new BackupdError('restore.archive', `this is not an archive of pg_dump that can be read: ${reason}`, {
    kind: 'integrity',
    hint: 'Verify the backup; an archive of a newer pg_dump needs the client programs of that version.',
  })

class TooShort extends Error {}

const reader = (bytes: Buffer) => {
  let at = 0
  let intSize = 4
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw new TooShort()
    at += length
    return bytes.subarray(at - length, at)
  }
  const byte = (): number => take(1).readUInt8()
  // A sign byte, then the lowest byte first.
  const int = (): number => {
    const negative = byte() !== 0
    const value = take(intSize).reduceRight((sum, part) => sum * 256 + part, 0)
    return negative ? -value : value
  }
  const text = (): string | undefined => {
    const length = int()
    return length < 0 ? undefined : take(length).toString('utf8')
  }
  return { take, byte, int, text, useIntSize: (size: number) => { intSize = size } }
}

type Reader = ReturnType<typeof reader>

const readEntry = ({ take, byte, int, text }: Reader, version: number, offsetSize: number): ArchiveEntry => {
  const id = int()
  int() // has data
  text() // catalog's oid
  text() // oid
  const tag = text() ?? ''
  const type = text() ?? ''
  int() // section
  const definition = text() ?? ''
  text() // drop statement
  text() // copy statement
  const schema = text() ?? ''
  text() // tablespace
  if (version >= 0x010e) text() // table access method
  if (version >= 0x0110) int() // kind of relation
  const owner = text() ?? ''
  text() // with oids
  const needs: number[] = []
  for (let need = text(); need !== undefined; need = text()) needs.push(Number(need))
  byte() // whether the offset is known
  take(offsetSize)
  return { id, type, schema, tag, owner, definition, needs }
}

const parse = (bytes: Buffer): ArchiveContents => {
  const input = reader(bytes)
  const { take, byte, int, text } = input
  if (take(5).toString('latin1') !== 'PGDMP') throw damaged('it does not begin with PGDMP')
  const version = byte() * 256 + byte()
  byte() // revision
  if (version < 0x010c || version > 0x0110) throw damaged(`its format is ${version >> 8}.${version & 255}`)
  input.useIntSize(byte())
  const offsetSize = byte()
  if (byte() !== 1) throw damaged('it is not in the custom format')
  if (version >= 0x010f) byte()
  else int() // compression
  for (let field = 0; field < 7; field += 1) int() // time
  const database = text() ?? ''
  const serverVersion = text() ?? ''
  const dumpVersion = text() ?? ''
  const entries: ArchiveEntry[] = []
  for (let left = int(); left > 0; left -= 1) entries.push(readEntry(input, version, offsetSize))
  return { database, serverVersion, dumpVersion, entries }
}

// A table of contents is about a kilobyte per object; this is room for a million of them.
const LARGEST = 1024 * 1024 * 1024

/**
 * Reads the table of contents at the head of a custom-format archive and gives the archive back whole. Format: ReadHead and ReadToc in
 * PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, versions 1.12 to 1.16 (pg_dump 9.6 to 18). Unlike the text of
 * `pg_restore --list`, it is exact for names with spaces. Fails with `restore.archive` or the source's own error.
 */
export const readContents = async (source: ByteSource): Promise<{ contents: ArchiveContents; whole: ByteSource & { return(): Promise<void> } }> => {
  const chunks = source[Symbol.asyncIterator]()
  const close = async (): Promise<void> => void (await chunks.return?.())
  let head = Buffer.alloc(0)
  let tried = 0
  const waiting: Uint8Array[] = []
  const whole = (async function* () {
    try {
      yield head
      for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value
    } finally {
      await close()
    }
  })()
  const give = (contents: ArchiveContents) => ({
    contents,
    whole: { [Symbol.asyncIterator]: () => whole, return: async () => { await whole.return(); await close() } },
  })
  try {
    for (let size = 0; ; ) {
      const next = await chunks.next()
      if (next.done !== true) {
        waiting.push(next.value)
        size += next.value.length
        // Parsing begins anew each time, so only when there is twice as much.
        if (size < tried * 2) continue
      }
      head = Buffer.concat(waiting, size)
      tried = size
      try {
        return give(parse(head))
      } catch (error) {
        if (!(error instanceof TooShort)) throw error
        if (next.done === true) throw damaged('it ends within its table of contents')
        if (size > LARGEST) throw damaged('its table of contents has no end')
      }
    }
  } catch (error) {
    await close()
    throw error
  }
}
