// JSON columns may have been written by another program, by hand, or as text inside of JSON: whatever they hold, reading never fails.

const opened = (value: unknown): unknown => {
  if (typeof value !== 'string' || !/^\s*[[{]/.test(value)) return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

/** The object in a JSON column; an empty one when it holds anything else. */
export const jsonObject = (value: unknown): Record<string, unknown> => {
  const found = opened(value)
  return typeof found === 'object' && found !== null && !Array.isArray(found) ? (found as Record<string, unknown>) : {}
}

/** The list in a JSON column; an empty one when it holds anything else. */
export const jsonList = (value: unknown): unknown[] => {
  const found = opened(value)
  return Array.isArray(found) ? found : []
}

/** The texts of a list in a JSON column. */
export const jsonTexts = (value: unknown): string[] => jsonList(value).filter((item) => typeof item === 'string')
