/** `text` as one word of a command that a reader may paste into a shell: quoted when it needs to be. */
export const shellWord = (text: string): string => (/^[\w@%+:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)
