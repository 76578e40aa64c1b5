import { integer, pgTable } from '../drizzle.js'

// These belong to the other application; only what foreign keys need is known of them, and they are created only when absent.

export const users = pgTable('users', { id: integer('id').primaryKey() })

export const projects = pgTable('projects', { id: integer('id').primaryKey() })
