import type { z } from 'zod'
import type { Log } from '../log.js'
import type { Secret } from '../secret.js'

export const backendTypes = ['local', 'aws_s3', 'gcs', 'azure_blob', 'ftp', 'sftp'] as const
export type BackendType = (typeof backendTypes)[number]

/** Bytes on their way; every stage of the data path takes one and gives one. */
export type ByteSource = AsyncIterable<Uint8Array>

export interface StoredObject {
  /** Relative to the storage's prefix, `/` between folders. */
  key: string
  /** Bytes. */
  size: number
  /** Unknown where the protocol does not tell. */
  modifiedAt: Date | undefined
}

export interface WriteOptions {
  signal: AbortSignal
}

export interface ReadOptions {
  /** First byte, default 0. */
  offset?: number
  /** Number of bytes, default to the end. */
  length?: number
  signal: AbortSignal
}

export interface ProbeStep {
  name: 'connect' | 'write' | 'read' | 'list' | 'remove'
  /** `denied` is a lack of rights that some set-ups want (write-only, immutable); `failed` is anything else. */
  outcome: 'ok' | 'denied' | 'failed' | 'skipped'
  /** One sentence: what was seen, and when it is not ok what to do. */
  message: string
  /** Code of the error, when there was one. */
  code?: string
}

export interface SweepReport {
  /** Abandoned uploads or partial objects that were removed. */
  removed: string[]
  /** What could not be removed, with the reason. */
  remaining: { key: string; reason: string }[]
}

export interface Capabilities {
  /** Several parts of one object can be in flight at once. */
  parallelUpload: boolean
  /** `list` tells exact modification times. */
  exactTimes: boolean
  /** Largest possible object, bytes. */
  maxObjectSize: number
}

/** A place for objects. Errors are BackupdErrors with a code `storage.*`. Methods may run concurrently. */
export interface Storage {
  readonly type: BackendType
  readonly capabilities: Capabilities
  /** What is unsafe about the configuration, one sentence each. */
  readonly concerns?: readonly string[]
  /** Where the object of `key` lies, as its owner would write it (`file:///…`, `s3://…`); no secret. */
  location(key: string): string
  /** Atomic: the object appears whole, under its final key, when `source` ended without error, and else not at all. Replaces. Resolves to the bytes stored. */
  write(key: string, source: ByteSource, options: WriteOptions): Promise<{ size: number }>
  /** The object's bytes; fails with `storage.not_found` when there is none. Resumes by itself at the offset reached. */
  read(key: string, options: ReadOptions): ByteSource
  stat(key: string, options: WriteOptions): Promise<StoredObject | undefined>
  /** Every object whose key starts with `prefix`, in no particular order; unfinished writes are not objects. */
  list(prefix: string, options: WriteOptions): AsyncIterable<StoredObject>
  /** Removing what is not there is not an error. */
  remove(key: string, options: WriteOptions): Promise<void>
  /** Writes, reads back, lists and removes a small object; never throws but for an abort. */
  probe(options: WriteOptions): Promise<ProbeStep[]>
  /** Removes abandoned uploads and partial objects last touched before `olderThan`. */
  sweep(options: WriteOptions & { olderThan: Date }): Promise<SweepReport>
  /** Free space for new objects in bytes, where the backend can tell. */
  freeSpace?(options: WriteOptions): Promise<number | undefined>
  close(): Promise<void>
}

/** What a backend implements. Keys reach it checked; `probe` is made of the other methods, once for all backends. */
export type StorageAdapter = Omit<Storage, 'probe'>

/** What a backend is opened with besides its own configuration. */
export interface StorageContext {
  log: Log
  /** Parts, blocks or chunks of one object in flight at once, at least 1. */
  parallelUploads: number
  /** How long a chunk is sent again before the write fails, milliseconds. */
  retryFor: number
}

/** Configuration with its secrets resolved: keys of the schema that are named in `secretFields` are `Secret`s. */
export type Resolved<T, S extends keyof T = never> = Omit<T, S> & { [K in S]: undefined extends T[K] ? Secret | undefined : Secret }

/** One kind of storage. One file each, one line in the registry. */
export interface StorageBackend {
  readonly type: BackendType
  /** Shape of `config_data` once references are resolved to text; unknown keys of the sharing application are let through. */
  readonly configSchema: z.ZodObject
  /** Fields of it that are secrets: sealed in the catalog, wrapped as `Secret` before `open`. */
  readonly secretFields: readonly string[]
  /** The least rights that backups, restores and retention need, as a part of a sentence; docs/storage.md has them ready to use. */
  readonly leastRights: string
  /** Loads what it needs lazily. Does not have to connect. */
  open(config: Readonly<Record<string, unknown>>, context: StorageContext): Promise<StorageAdapter>
}
