import { z } from 'zod'
import type { ChannelKind } from './channel.js'
import { url } from './fields.js'
import { post } from './http.js'
import { colourOf, cut, factsOf, signOf } from './wording.js'

const schema = z.object({ url })

// So that nothing in a message is a link, or calls a whole channel.
const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

/** A Slack incoming webhook (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks), also of services that take its format, such as Mattermost. */
export const slackChannel: ChannelKind = {
  type: 'slack',
  configSchema: schema,
  secretFields: ['url'],
  open: (config) => {
    const { url: target } = schema.parse(config)
    return {
      send: (message, { signal }) => post({
        url: target, signal,
        body: JSON.stringify({
          text: `${signOf(message)} ${escaped(message.title)}`,
          attachments: [{
            color: `#${colourOf(message)}`,
            fallback: escaped(message.title),
            text: escaped(cut(message.message, 2500)),
            fields: factsOf(message).map(([title, value]) => ({ title, value: escaped(value), short: value.length <= 30 })),
          }],
        }),
      }),
    }
  },
}
