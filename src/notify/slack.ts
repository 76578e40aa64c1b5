import { urlChannel } from './url-channel.js'
import { colourOf, cut, factsOf, signOf } from './wording.js'

// So that nothing in a message is a link, or calls a whole channel.
const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

/** A Slack incoming webhook (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks), also of services that take its format, such as Mattermost. */
export const slackChannel = urlChannel('slack', (target, message) => ({
  url: target,
  body: JSON.stringify({
    text: `${signOf(message)} ${escaped(message.title)}`,
    attachments: [{
      color: `#${colourOf(message)}`,
      fallback: escaped(message.title),
      text: escaped(cut(message.message, 2500)),
      fields: factsOf(message).map(([title, value]) => ({ title, value: escaped(value), short: value.length <= 30 })),
    }],
  }),
}))
