import { urlChannel } from './url-channel.js'
import { colourOf, cut, factsOf, signOf } from './wording.js'

// Discord's marks, so that names with underscores or stars read as they are.
const escaped = (text: string): string => text.replaceAll(/[\\*_~`|>[\]]/g, '\\$&')

/** A Discord webhook (https://docs.discord.com/developers/resources/webhook#execute-webhook). */
export const discordChannel = urlChannel('discord', (target, message) => ({
  url: target,
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
}))
