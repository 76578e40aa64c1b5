import type { Kind } from './apply-kind.js'
import { keyKind } from './apply-keys.js'
import { notifierKind } from './apply-notifiers.js'
import { policyKind } from './apply-policies.js'
import { scheduleKind } from './apply-schedules.js'
import { sourceKind } from './apply-sources.js'
import { storageKind } from './apply-storages.js'

/** Every kind of object that a configuration holds, each after those that it may refer to. */
export const kinds: readonly Kind[] = [keyKind, sourceKind, storageKind, policyKind, scheduleKind, notifierKind]
