import postgres from 'postgres'

/** The driver on one connection to `url`. It does not decode the name of the database in a URL by itself. */
export const connectTo = (url: string): postgres.Sql =>
  postgres(url, { database: decodeURIComponent(new URL(url).pathname.slice(1)), max: 1, prepare: false, fetch_types: false, onnotice: () => undefined })
