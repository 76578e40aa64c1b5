/** Fills the empty database of `url` with about `megabytes` (default 100) of tables; `log` gets a line per table. */
export const createSampleDatabase: (url: string, options?: { megabytes?: number; log?: (line: string) => void }) => Promise<void>
