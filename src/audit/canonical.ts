// RFC 8785, the JSON Canonicalization Scheme: no blanks, keys in the order of their UTF-16 code units, numbers and texts as
// ECMAScript writes them. `JSON.stringify` is that already, but for the order of keys.

/** The canonical JSON (RFC 8785) of a value that JSON can hold: the same text for the same content, whatever column type it went through. */
export const canonicalJson = (value: unknown): string => {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(',')}}`
}
