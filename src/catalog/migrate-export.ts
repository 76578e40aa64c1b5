import { createWriteStream } from 'node:fs'
import { access, constants, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type postgres from 'postgres'
import { BackupdError, messageOf, throwIfAborted } from '../errors.js'
import { makeFolders } from '../folders.js'
import { quoted, type Step } from './migrate-loss.js'

const refused = (folder: string, why: string, cause?: unknown): BackupdError =>
  new BackupdError('catalog.export', `what would be lost cannot be written to ${folder}: ${why}; nothing was dropped`, {
    kind: 'configuration', cause, hint: 'Name an empty or a new folder with room in --export.',
  })

/** Makes the folder (mode 0700) if need be. Fails with `catalog.export` when it is not empty or cannot be written to. */
export const prepareFolder = async (folder: string): Promise<void> => {
  let names: string[]
  try {
    await makeFolders(folder)
    names = await readdir(folder)
    await access(folder, constants.W_OK | constants.X_OK)
  } catch (error) {
    throw refused(folder, messageOf(error), error)
  }
  if (names.length > 0) throw refused(folder, 'it is not empty')
}

const isFileError = (error: unknown): boolean => {
  const { code, syscall } = error as NodeJS.ErrnoException
  return typeof code === 'string' && typeof syscall === 'string' && /^(open|write|fsync|close)/.test(syscall)
}

const sync = async (path: string, flags: string): Promise<void> => {
  const handle = await open(path, flags)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

type Tx = postgres.TransactionSql<{ bigint: number }>

// An empty table leaves its heading: it says that there was nothing.
const copyOut = async (tx: Tx, path: string, query: string, signal: AbortSignal): Promise<void> => {
  const rows = await tx.unsafe(`COPY (${query}) TO STDOUT WITH (FORMAT csv, HEADER true)`).readable()
  await pipeline(rows, createWriteStream(path, { flags: 'wx', mode: 0o600 }), { signal })
  await sync(path, 'r+')
}

const outputsOf = ({ tag, tables, columns }: Step): { name: string; query: string }[] => [
  ...columns.map(({ table, columns: names }) => {
    const list = names.map(quoted).join(', ')
    return { name: `${tag}.${table}.columns.csv`, query: `SELECT id, ${list} FROM ${quoted(table)} WHERE num_nonnulls(${list}) > 0 ORDER BY id` }
  }),
  ...tables.map((table) => ({ name: `${tag}.${table}.csv`, query: `SELECT * FROM ${quoted(table)} ORDER BY id` })),
]

/**
 * Writes what a step drops to new files (mode 0600) in `folder`, one for each table and one for the columns of each, named after the
 * migration; on the disk when this resolves. Every name is added to `files` before it is written. Fails with `catalog.export`.
 */
export const exportStep = async (tx: Tx, step: Step, folder: string, files: string[], signal: AbortSignal): Promise<void> => {
  try {
    for (const { name, query } of outputsOf(step)) {
      throwIfAborted(signal)
      const path = join(folder, name)
      files.push(path)
      await copyOut(tx, path, query, signal)
    }
    await sync(folder, 'r')
  } catch (error) {
    throw isFileError(error) ? refused(folder, messageOf(error), error) : error
  }
}

/** Removes files of an export that came to nothing. */
export const discardFiles = async (files: readonly string[]): Promise<void> => {
  for (const file of files) await rm(file, { force: true })
}
