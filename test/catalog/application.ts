// The tables that the other application shares with us, as its own migrations leave them: JSON columns are `json`, and nothing but
// `now()` has a default in the database. Written down apart from src/catalog/schema, so that one can be held against the other.
//
//   column type? = default -> referenced table [cascade] unique      (`?`: may be null)
//   index NAME[: columns]                                           (ix_<table>_NAME; on the column of that name unless listed)
const description = `
storage_backend_configs
  id serial
  name varchar(100)
  backend_type varchar(20)
  config_data jsonb
  is_active boolean = true
  is_healthy boolean = true
  last_health_check timestamptz?
  health_check_message varchar(500)?
  total_backups integer = 0
  total_size_bytes bigint = 0
  description varchar(500)?
  tags jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index backend_type
  index name
backup_schedules
  id serial
  name varchar(200)
  cron_expression varchar(100)
  timezone varchar(50) = 'UTC'
  backup_type varchar(20)
  storage_backend_id integer -> storage_backend_configs
  compression_type varchar(10) = 'gzip'
  encrypt_backup boolean = true
  verify_integrity boolean = true
  retention_days integer = 30
  include_patterns jsonb?
  exclude_patterns jsonb?
  bandwidth_limit_mbps integer?
  max_parallel_uploads integer = 3
  is_active boolean = true
  last_run_at timestamptz?
  next_run_at timestamptz?
  last_status varchar(50)?
  total_runs integer = 0
  successful_runs integer = 0
  failed_runs integer = 0
  description varchar(1000)?
  tags jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index backup_type
  index is_active
  index name
  index storage_backend_id
backup_executions
  id serial
  backup_id varchar(100) unique
  schedule_id integer? -> backup_schedules
  storage_backend_id integer -> storage_backend_configs
  backup_type varchar(20)
  triggered_by varchar(100)
  trigger_user_id integer? -> users
  status varchar(20)
  started_at timestamptz
  completed_at timestamptz?
  duration_seconds integer?
  size_bytes bigint = 0
  compressed_size_bytes bigint = 0
  compression_ratio double = 1.0
  included_components jsonb
  storage_location varchar(1000)?
  checksum varchar(128)?
  encryption_key_hash varchar(128)?
  verification_status varchar(50) = 'pending'
  verified_at timestamptz?
  verification_checksum varchar(128)?
  error_message text?
  error_details jsonb?
  warnings jsonb?
  backup_config jsonb?
  execution_metadata jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index backup_id
  index backup_type
  index schedule_id
  index status
  index storage_backend_id
backup_retention_policies
  id serial
  name varchar(200)
  storage_backend_id integer -> storage_backend_configs
  backup_type varchar(20)?
  retention_days integer = 30
  keep_daily_for_days integer = 7
  keep_weekly_for_weeks integer = 4
  keep_monthly_for_months integer = 12
  keep_yearly_for_years integer = 5
  min_backups_to_keep integer = 3
  is_active boolean = true
  last_cleanup_at timestamptz?
  total_cleanups integer = 0
  total_backups_deleted integer = 0
  total_space_freed_bytes bigint = 0
  policy_rules jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index backup_type
  index is_active
  index name
  index storage_backend_id
recovery_executions
  id serial
  recovery_id varchar(100) unique
  backup_execution_id integer? -> backup_executions
  source_backup_id varchar(100)
  recovery_type varchar(30)
  restore_target varchar(50)
  target_timestamp timestamptz?
  target_system varchar(200)
  custom_restore_path varchar(1000)?
  status varchar(20)
  triggered_by varchar(100)
  trigger_user_id integer? -> users
  started_at timestamptz
  completed_at timestamptz?
  duration_seconds integer?
  restore_components jsonb
  restored_components jsonb = []
  pre_recovery_backup_id varchar(100)?
  validation_performed boolean = false
  validation_results jsonb?
  validation_passed boolean?
  error_message text?
  error_details jsonb?
  warnings jsonb?
  recovery_config jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index backup_execution_id
  index recovery_id
  index recovery_type
  index source_backup_id
  index status
backup_health_checks
  id serial
  check_id varchar(100) unique
  check_type varchar(50)
  target_id integer?
  target_type varchar(50)?
  checked_at timestamptz
  check_duration_seconds double?
  status varchar(50)
  health_score double?
  check_results jsonb?
  issues_found jsonb?
  recommendations jsonb?
  metrics jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index check_id
  index check_type
  index status
  index target_id
backup_cleanup_history
  id serial
  cleanup_id varchar(100) unique
  retention_policy_id integer -> backup_retention_policies
  storage_backend_id integer -> storage_backend_configs
  triggered_by varchar(100)
  started_at timestamptz
  completed_at timestamptz?
  duration_seconds integer?
  backups_evaluated integer = 0
  backups_deleted integer = 0
  backups_kept integer = 0
  space_freed_bytes bigint = 0
  deleted_backup_ids jsonb = []
  status varchar(50)
  error_message text?
  warnings jsonb?
  created_at timestamptz = now()
  updated_at timestamptz?
  index cleanup_id
  index retention_policy_id
  index status
  index storage_backend_id
audit_logs
  id serial
  user_id integer? -> users
  admin_user_id integer? -> users
  session_id varchar(255)?
  request_id varchar(100)?
  action varchar(100)
  resource_type varchar(50)
  resource_id varchar(255)?
  category varchar(50)
  severity varchar(20) = 'medium'
  ip_address varchar(45)?
  user_agent varchar(512)?
  request_method varchar(10)?
  request_url varchar(2048)?
  request_headers jsonb?
  request_body jsonb?
  response_status integer?
  response_headers jsonb?
  response_body jsonb?
  success boolean = true
  error_message text?
  error_code varchar(100)?
  affected_count integer = 0
  before_values jsonb?
  after_values jsonb?
  changed_fields jsonb?
  details jsonb?
  tags jsonb?
  compliance_flags jsonb?
  sensitive_data_accessed boolean = false
  gdpr_relevant boolean = false
  sox_relevant boolean = false
  hipaa_relevant boolean = false
  checksum varchar(64)?
  signature varchar(512)?
  encrypted boolean = false
  processing_time_ms integer?
  database_queries integer?
  memory_usage_mb double?
  country_code varchar(2)?
  city varchar(100)?
  device_type varchar(50)?
  browser_info varchar(255)?
  created_at timestamptz = now()
  updated_at timestamptz?
  retention_until timestamptz?
  archived boolean = false
  archived_at timestamptz?
  index action
  index action_resource: action, resource_type
  index admin_created: admin_user_id, created_at
  index admin_user_id
  index archived
  index category
  index category_severity: category, severity
  index compliance: gdpr_relevant, sox_relevant, hipaa_relevant
  index created_at
  index gdpr_relevant
  index hipaa_relevant
  index ip_address
  index ip_created: ip_address, created_at
  index request_id
  index resource_type
  index retention: retention_until, archived
  index sensitive_data: sensitive_data_accessed, created_at
  index sensitive_data_accessed
  index session_created: session_id, created_at
  index session_id
  index severity
  index sox_relevant
  index success
  index user_created: user_id, created_at
  index user_id
backup_audit_logs
  id serial
  audit_id varchar(100) unique
  event_type varchar(100)
  event_category varchar(50)
  user_id integer? -> users
  username varchar(200)?
  user_ip varchar(45)?
  user_agent varchar(500)?
  resource_type varchar(50)?
  resource_id varchar(100)?
  resource_name varchar(200)?
  action varchar(100)
  status varchar(50)
  event_data jsonb?
  before_state jsonb?
  after_state jsonb?
  risk_level varchar(20) = 'low'
  compliance_tags jsonb?
  session_id varchar(100)?
  correlation_id varchar(100)?
  created_at timestamptz = now()
  updated_at timestamptz?
  index audit_id
  index event_category
  index event_type
  index user_id
meilisearch_keys
  id serial
  project_id integer -> projects cascade
  key_uid varchar(256) unique
  key_type varchar(50)
  key_name varchar(255)?
  key_description text?
  actions jsonb?
  indexes jsonb?
  expires_at timestamptz?
  is_active boolean = true
  revoked_at timestamptz?
  revoked_reason varchar(255)?
  usage_count integer = 0
  last_used_at timestamptz?
  created_at timestamptz = now()
  updated_at timestamptz = now()
  index expires_at
  index is_active
  index key_type
  index project_id
meilisearch_usage_logs
  id serial
  key_id integer -> meilisearch_keys
  operation varchar(100)
  index_name varchar(255)
  query text?
  filters jsonb?
  result_count integer?
  response_time_ms integer?
  success boolean = true
  error_message text?
  ip_address varchar(45)?
  user_agent text?
  request_id varchar(128)?
  created_at timestamptz = now()
  index created_at
  index key_created: key_id, created_at
  index key_id
  index operation
  index success
meilisearch_security_events
  id serial
  key_id integer? -> meilisearch_keys
  event_type varchar(100)
  severity varchar(20)
  description text
  event_metadata jsonb = {}
  source_ip varchar(45)?
  user_id integer? -> users
  automated boolean = false
  created_at timestamptz = now()
  index created_at
  index event_type
  index key_id
  index severity
  index user_id
`

export interface Column {
  name: string
  /** As in format_type(), `jsonb` for JSON. */
  type: string
  nullable: boolean
  default: string | undefined
  references: string | undefined
  onDelete: 'cascade' | undefined
  unique: boolean
}

export interface Index {
  name: string
  columns: string[]
  unique: boolean
}

export interface Table {
  name: string
  columns: Column[]
  indexes: Index[]
}

const columnLine = /^(\w+) ([\w()]+)(\?)?(?: = (\S+))?(?: -> (\w+)( cascade)?)?( unique)?$/
const fullType = (short: string): string =>
  short.replace('timestamptz', 'timestamp with time zone').replace('double', 'double precision').replace('varchar', 'character varying')

const parse = (): Table[] => {
  const tables: Table[] = []
  for (const line of description.trim().split('\n')) {
    const table = tables.at(-1)
    if (!line.startsWith(' ')) tables.push({ name: line, columns: [], indexes: [] })
    else if (line.startsWith('  index ')) {
      const [name = '', columns] = line.slice('  index '.length).split(': ')
      const of = columns?.split(', ') ?? [name]
      const unique = columns === undefined && table?.columns.find((column) => column.name === name)?.unique === true
      table?.indexes.push({ name: `ix_${table.name}_${name}`, columns: of, unique })
    } else {
      const [, name = '', type = '', nullable, value, references, cascade, unique] = columnLine.exec(line.trim()) ?? []
      if (name === '') throw new Error(`not understood: ${line}`)
      table?.columns.push({
        name, type: fullType(type), nullable: nullable !== undefined, default: value, references,
        onDelete: cascade === undefined ? undefined : 'cascade', unique: unique !== undefined,
      })
    }
  }
  for (const { name, columns, indexes } of tables) {
    for (const column of columns.filter(({ unique }) => unique)) {
      if (!indexes.some((index) => index.unique && index.columns[0] === column.name)) {
        indexes.push({ name: `${name}_${column.name}_key`, columns: [column.name], unique: true })
      }
    }
  }
  return tables
}

/** All twelve, in the order in which they can be created. */
export const applicationTables: readonly Table[] = parse()

/** What databases of the application are found with. */
export const stages = {
  nine: applicationTables.slice(0, 9).map(({ name }) => name),
  ten: applicationTables.slice(0, 10).map(({ name }) => name),
  twelve: applicationTables.map(({ name }) => name),
} as const
export type Stage = keyof typeof stages

const columnSql = (table: string, { name, type, nullable, default: value, references, onDelete, unique }: Column): string => [
  name, type === 'jsonb' ? 'json' : type, nullable ? '' : 'NOT NULL', type === 'serial' ? 'PRIMARY KEY' : '', value === 'now()' ? 'DEFAULT now()' : '',
  references === undefined ? '' : `REFERENCES ${references} (id) ${onDelete === undefined ? '' : 'ON DELETE CASCADE'}`,
  unique && table === 'meilisearch_keys' ? 'UNIQUE' : '',
].filter((part) => part !== '').join(' ')

/** The application's DDL for these tables, with more in `users` and `projects` than anybody else knows of. */
export const applicationDdl = (stage: Stage): string => [
  `CREATE TABLE users (id integer PRIMARY KEY, email varchar(255) NOT NULL UNIQUE, settings json, created_at timestamptz DEFAULT now());
   CREATE TABLE projects (id serial PRIMARY KEY, title text NOT NULL, owner_id integer REFERENCES users (id));`,
  ...applicationTables.filter(({ name }) => stages[stage].includes(name)).flatMap(({ name, columns, indexes }) => [
    `CREATE TABLE ${name} (${columns.map((column) => columnSql(name, column)).join(', ')});`,
    ...indexes.filter((index) => index.name.startsWith('ix_'))
      .map((index) => `CREATE ${index.unique ? 'UNIQUE ' : ''}INDEX ${index.name} ON ${name} (${index.columns.join(', ')});`),
  ]),
].join('\n')

const sample = ({ type, name, references }: Column, n: number): string => {
  if (references !== undefined) return '1'
  if (type.startsWith('character varying') || type === 'text') return `'${name.slice(0, 6)} ${n}'`
  if (type === 'boolean') return 'true'
  if (type === 'jsonb') return `'{"n": ${n}, "list": [1, 1.50], "text": "x"}'`
  if (type.startsWith('timestamp')) return `'2026-01-0${n} 02:00:00+00'`
  return String(n)
}

/** Two rows in every table, with every column filled, and one in `users` and `projects`. */
export const applicationRows = (stage: Stage): string => [
  `INSERT INTO users VALUES (1, 'a@example.org', '{"theme": "dark"}'); INSERT INTO projects VALUES (1, 'one', 1);`,
  ...applicationTables.filter(({ name }) => stages[stage].includes(name)).flatMap(({ name, columns }) => {
    const filled = columns.filter((column) => column.name !== 'id')
    return [1, 2].map((n) => `INSERT INTO ${name} (${filled.map((column) => column.name).join(', ')}) VALUES (${filled
      .map((column) => (/\((\d)\)/.test(column.type) ? `'x${n}'` : sample(column, n))).join(', ')});`)
  }),
].join('\n')
