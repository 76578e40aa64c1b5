import type { Kind } from './kind.js'
import { keyKind } from './keys.js'
import { notifierKind } from './notifiers.js'
import { policyKind } from './policies.js'
import { scheduleKind } from './schedules.js'
import { sourceKind } from './sources.js'
import { storageKind } from './storages.js'

/** Every kind of object that a configuration holds, each after those that it may refer to. */
export const kinds: readonly Kind[] = [keyKind, sourceKind, storageKind, policyKind, scheduleKind, notifierKind]
