import { inspect } from 'node:util'

// Every secret value that was ever held by this process, longest first, so that text can be cleaned of it on its way out.
const known = new Set<string>()
let ordered: string[] = []

const MASK = '[secret]'
// Shorter values would blank out ordinary words; they are still hidden by the Secret wrapper.
const SHORTEST = 4

const remember = (value: string): void => {
  if (value.length < SHORTEST || known.has(value)) return
  known.add(value)
  const encoded = encodeURIComponent(value)
  if (encoded !== value) known.add(encoded)
  const quoted = JSON.stringify(value).slice(1, -1)
  if (quoted !== value) known.add(quoted)
  ordered = [...known].sort((a, b) => b.length - a.length)
}

/** A secret that cannot be printed by accident: every way of turning it into text but `reveal()` gives a mask. */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
    for (const line of value.split(/\r?\n/)) remember(line.trim())
    remember(value)
  }

  /** The value itself, for the one call that needs it. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return MASK
  }

  toJSON(): string {
    return MASK
  }

  [inspect.custom](): string {
    return MASK
  }
}

/** `text` with every known secret, and the password of anything that looks like a URL, masked. */
export const redact = (text: string): string => {
  let clean = text
  for (const secret of ordered) if (clean.includes(secret)) clean = clean.replaceAll(secret, MASK)
  return clean.replace(/([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s/@]+@/gi, `$1:${MASK}@`)
}
