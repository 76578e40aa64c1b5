import type { Message } from './channel.js'
import { urlChannel } from './url-channel.js'
import { cut, factsOf, signOf } from './wording.js'

const titleColour = ({ severity }: Message): string => ({ critical: 'Attention', warning: 'Warning', info: 'Good' })[severity]

// A text block knows some Markdown; links are the part that could mislead.
const escaped = (text: string): string => text.replaceAll(/[[\]*]/g, '\\$&')

const card = (message: Message): unknown => ({
  $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
  type: 'AdaptiveCard',
  version: '1.4',
  body: [
    { type: 'TextBlock', text: `${signOf(message)} ${escaped(message.title)}`, weight: 'Bolder', size: 'Medium', color: titleColour(message), wrap: true },
    { type: 'TextBlock', text: escaped(cut(message.message, 2500)), wrap: true },
    { type: 'FactSet', facts: factsOf(message).map(([title, value]) => ({ title, value: escaped(value) })) },
  ],
})

/** An Adaptive Card for the webhook of a Microsoft Teams workflow (https://adaptivecards.io/explorer/AdaptiveCard.html). */
export const teamsChannel = urlChannel('teams', (target, message) => ({
  url: target,
  body: JSON.stringify({ type: 'message', attachments: [{ contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content: card(message) }] }),
}))
