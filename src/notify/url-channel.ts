import { z } from 'zod'
import type { ChannelKind, ChannelType, Message } from './channel.js'
import { url } from './fields.js'
import { post, type Post } from './http.js'

const schema = z.object({ url })

/** A kind of notifier that has nothing but a URL, which is its secret: each message is one POST that `request` makes for it. */
export const urlChannel = (type: ChannelType, request: (target: string, message: Message) => Omit<Post, 'signal'>): ChannelKind => ({
  type,
  configSchema: schema,
  secretFields: ['url'],
  open: (config) => {
    const { url: target } = schema.parse(config)
    return { send: (message, { signal }) => post({ ...request(target, message), signal }) }
  },
})
