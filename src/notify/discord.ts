import { z } from 'zod'
import type { ChannelKind } from './channel.js'
import { url } from './fields.js'
import { post } from './http.js'
import { colourOf, cut, factsOf, signOf } from './wording.js'

const schema = z.object({ url })

// Discord's marks, so that names with underscores or stars read as they are.
const escaped = (text: string): string => text.replaceAll(/[\\*_~`|>[\]]/g, '\\$&')

/** A Discord webhook (https://docs.discord.com/developers/resources/webhook#execute-webhook). */
export const discordChannel: ChannelKind = {
  type: 'discord',
  configSchema: schema,
  secretFields: ['url'],
  open: (config) => {
    const { url: target } = schema.parse(config)
    return {
      send: (message, { signal }) => post({
        url: target, signal,
        body: JSON.stringify({
          username: 'backupd',
          allowed_mentions: { parse: [] },
          embeds: [{
            title: cut(`${signOf(message)} ${escaped(message.title)}`, 256),
            description: cut(escaped(message.message), 2500),
            color: Number.parseInt(colourOf(message), 16),
            timestamp: message.raised_at,
            fields: factsOf(message).slice(0, 25).map(([name, value]) => ({ name, value: cut(escaped(value), 250), inline: value.length <= 30 })),
          }],
        }),
      }),
    }
  },
}
