import postgres from 'postgres'

/** What the driver calls a connection, as far as it is used here; seen in version 3.4.9, `src/connection.js` and `src/index.js`. */
interface Wire {
  id: number
  connect(query: unknown): void
  /** Gives whether more statements may follow at once; false would take the connection out of the pool. */
  execute(statement: Statement): unknown
}

interface Statement {
  reject(error: Error): void
}

type Options = postgres.Options<Record<string, postgres.PostgresType>>
type Unsafe = (text: string, args?: unknown[], options?: { onexecute?: (wire: Wire) => unknown }) => unknown

const lostError = (): Error => Object.assign(new Error('the connection was lost in the middle of a transaction'), { code: 'CONNECTION_CLOSED' })

/**
 * The driver's pool, without one fault of it: when a connection is lost under a transaction, it sends the transaction's next statement
 * (its own ROLLBACK at least) to a socket that is gone, which throws where nobody can catch and ends the process. Here such a
 * statement is rejected with `CONNECTION_CLOSED`, as those before it were.
 */
export const openPool = <T extends Record<string, unknown> = Record<string, never>>(options: object, url?: string): postgres.Sql<T> => {
  const lost = new Set<number>()
  const known = new Set<number>()
  const guard = (wire: Wire): void => {
    if (known.has(wire.id)) return
    known.add(wire.id)
    const { connect, execute } = wire
    wire.connect = (query) => {
      lost.delete(wire.id)
      connect(query)
    }
    wire.execute = (statement) => {
      if (!lost.has(wire.id)) return execute(statement)
      statement.reject(lostError())
      return true
    }
  }
  const { onclose } = options as Options
  const settings: Options = {
    ...options,
    onclose: (id) => {
      if (known.has(id)) lost.add(id)
      onclose?.(id)
    },
  }
  const pool = url === undefined ? postgres(settings) : postgres(url, settings)
  // `begin` of the driver goes through here and asks to be told of its connection, before anything of the transaction runs.
  const unsafe = pool.unsafe as unknown as Unsafe
  const watched: Unsafe = (text, args, given) => {
    const told = given?.onexecute
    return told === undefined ? unsafe(text, args, given) : unsafe(text, args, { ...given, onexecute: (wire) => { guard(wire); return told(wire) } })
  }
  Object.assign(pool, { unsafe: watched })
  return pool as unknown as postgres.Sql<T>
}
