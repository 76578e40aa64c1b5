-- Written by scripts/adoption-sql.mjs from the snapshot of the same number in meta/.
-- Every step adds what is missing and leaves alone what is there, whoever made it: no type is changed and nothing is dropped.
CREATE TABLE IF NOT EXISTS "backup_audit_chain" ();
CREATE TABLE IF NOT EXISTS "backup_keys" ();
CREATE TABLE IF NOT EXISTS "backup_sources" ();
CREATE TABLE IF NOT EXISTS "backup_workers" ();
--> statement-breakpoint
-- Columns: those that are missing are added; those that have no default in the database get the one of the schema.
DO $adopt$
DECLARE
  change record;
  has_rows boolean;
BEGIN
  FOR change IN
    WITH wanted (place, table_name, column_name, type, required, default_value) AS (VALUES
    (0, 'backup_audit_chain', 'id', 'integer PRIMARY KEY', false, NULL),
    (1, 'backup_audit_chain', 'seq', 'bigint', true, NULL),
    (2, 'backup_audit_chain', 'hash', 'varchar(64)', true, NULL),
    (3, 'backup_audit_chain', 'updated_at', 'timestamp with time zone', true, 'now()'),
    (4, 'backup_keys', 'id', 'serial PRIMARY KEY', false, NULL),
    (5, 'backup_keys', 'name', 'varchar(200)', true, NULL),
    (6, 'backup_keys', 'recipient', 'text', true, NULL),
    (7, 'backup_keys', 'fingerprint', 'varchar(64)', true, NULL),
    (8, 'backup_keys', 'created_at', 'timestamp with time zone', true, 'now()'),
    (9, 'backup_keys', 'retired_at', 'timestamp with time zone', false, NULL),
    (10, 'backup_sources', 'id', 'serial PRIMARY KEY', false, NULL),
    (11, 'backup_sources', 'name', 'varchar(200)', true, NULL),
    (12, 'backup_sources', 'connection', 'jsonb', true, NULL),
    (13, 'backup_sources', 'description', 'varchar(1000)', false, NULL),
    (14, 'backup_sources', 'created_at', 'timestamp with time zone', true, 'now()'),
    (15, 'backup_sources', 'updated_at', 'timestamp with time zone', false, NULL),
    (16, 'backup_workers', 'id', 'text PRIMARY KEY', false, NULL),
    (17, 'backup_workers', 'kind', 'varchar(20)', true, NULL),
    (18, 'backup_workers', 'host', 'varchar(255)', true, NULL),
    (19, 'backup_workers', 'pid', 'integer', true, NULL),
    (20, 'backup_workers', 'version', 'varchar(50)', true, NULL),
    (21, 'backup_workers', 'started_at', 'timestamp with time zone', true, 'now()'),
    (22, 'backup_workers', 'heartbeat_at', 'timestamp with time zone', true, 'now()'),
    (23, 'backup_workers', 'lease_expires_at', 'timestamp with time zone', true, NULL),
    (24, 'backup_workers', 'state', 'varchar(20)', true, NULL),
    (25, 'backup_workers', 'details', 'jsonb', false, NULL),
    (26, 'backup_executions', 'source_id', 'integer', false, NULL),
    (27, 'backup_executions', 'scheduled_for', 'timestamp with time zone', false, NULL),
    (28, 'backup_executions', 'worker_id', 'text', false, NULL),
    (29, 'backup_executions', 'lease_expires_at', 'timestamp with time zone', false, NULL),
    (30, 'backup_executions', 'attempt', 'integer', false, NULL),
    (31, 'backup_executions', 'retry_of', 'integer', false, NULL),
    (32, 'backup_executions', 'copy_of', 'integer', false, NULL),
    (33, 'backup_executions', 'not_before', 'timestamp with time zone', false, NULL),
    (34, 'backup_executions', 'cancel_requested_at', 'timestamp with time zone', false, NULL),
    (35, 'backup_executions', 'progress', 'jsonb', false, NULL),
    (36, 'backup_schedules', 'source_id', 'integer', false, NULL),
    (37, 'backup_schedules', 'copy_to', 'integer', false, NULL),
    (38, 'backup_schedules', 'compression_level', 'integer', false, NULL),
    (39, 'backup_schedules', 'jobs', 'integer', false, NULL),
    (40, 'backup_schedules', 'next_run_for', 'text', false, NULL),
    (41, 'recovery_executions', 'worker_id', 'text', false, NULL),
    (42, 'recovery_executions', 'lease_expires_at', 'timestamp with time zone', false, NULL),
    (43, 'recovery_executions', 'cancel_requested_at', 'timestamp with time zone', false, NULL),
    (44, 'recovery_executions', 'progress', 'jsonb', false, NULL)
    ), compared AS (
      SELECT wanted.*, a.attname IS NULL AS missing,
        a.attname IS NOT NULL AND NOT a.atthasdef AND a.attidentity = '' AND default_value IS NOT NULL AS undefaulted,
        a.attname IS NOT NULL AND NOT a.atthasdef AND a.attidentity = '' AND type = 'serial PRIMARY KEY' AS unnumbered
      FROM wanted
      JOIN pg_class c ON c.relname = table_name AND c.relnamespace = quote_ident(current_schema())::regnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = column_name AND NOT a.attisdropped
    ), worded AS (
      SELECT *, format('ADD COLUMN %I %s', column_name, type) || coalesce(' DEFAULT ' || default_value, '') AS addition,
        format('ALTER COLUMN %I SET DEFAULT %s', column_name, default_value) AS defaulting
      FROM compared WHERE missing OR undefaulted OR unnumbered
    )
    SELECT table_name, bool_or(unnumbered) AS unnumbered,
      string_agg(CASE WHEN missing THEN addition || CASE WHEN required THEN ' NOT NULL' ELSE '' END
        WHEN undefaulted THEN defaulting END, ', ' ORDER BY place) AS clauses,
      -- A required column cannot be added to a table with rows unless it has a default.
      string_agg(CASE WHEN missing THEN addition || CASE WHEN required AND default_value IS NOT NULL THEN ' NOT NULL' ELSE '' END
        WHEN undefaulted THEN defaulting END, ', ' ORDER BY place) AS lenient_clauses
    FROM worded GROUP BY table_name ORDER BY min(place)
  LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', change.table_name) INTO has_rows;
    IF change.clauses IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I %s', change.table_name, CASE WHEN has_rows THEN change.lenient_clauses ELSE change.clauses END);
    END IF;
    IF change.unnumbered THEN
      EXECUTE format('CREATE SEQUENCE IF NOT EXISTS %I AS integer OWNED BY %I.id', change.table_name || '_id_seq', change.table_name);
      EXECUTE format('SELECT setval(%L, coalesce(max(id), 0) + 1, false) FROM %I',
        quote_ident(change.table_name || '_id_seq'), change.table_name);
      EXECUTE format('ALTER TABLE %I ALTER COLUMN id SET DEFAULT nextval(%L)',
        change.table_name, quote_ident(change.table_name || '_id_seq'));
    END IF;
  END LOOP;
END
$adopt$;
--> statement-breakpoint
-- Indexes: by name and table. A name that something else in the schema has already is taken with a prefix.
DO $adopt$
DECLARE
  wanted record;
  chosen text;
BEGIN
  FOR wanted IN SELECT * FROM (VALUES
    ('ix_backup_keys_name', 'backup_keys', true, false, 'name', NULL),
    ('ix_backup_keys_recipient', 'backup_keys', true, false, 'recipient', NULL),
    ('ix_backup_sources_name', 'backup_sources', true, false, 'name', NULL),
    ('ix_backup_workers_lease_expires_at', 'backup_workers', false, false, 'lease_expires_at', NULL),
    ('ix_backup_executions_source_id', 'backup_executions', false, false, 'source_id', NULL),
    ('ix_backup_executions_schedule_started', 'backup_executions', false, false, 'schedule_id, started_at', NULL),
    ('ix_backup_executions_copy_of', 'backup_executions', false, false, 'copy_of', NULL),
    ('ix_backup_executions_retry_of', 'backup_executions', false, false, 'retry_of', NULL),
    ('ix_backup_executions_queue', 'backup_executions', false, false, 'not_before, id', 'status = ''pending'' AND attempt IS NOT NULL'),
    ('ix_backup_executions_lease', 'backup_executions', false, false, 'lease_expires_at', 'status IN (''running'', ''verifying'')'),
    ('ix_backup_executions_live', 'backup_executions', true, false, 'schedule_id', 'status IN (''pending'', ''running'', ''verifying'') AND attempt IS NOT NULL AND copy_of IS NULL'),
    ('ix_backup_executions_tick', 'backup_executions', true, false, 'schedule_id, scheduled_for, attempt', 'scheduled_for IS NOT NULL AND attempt IS NOT NULL AND copy_of IS NULL'),
    ('ix_backup_schedules_source_id', 'backup_schedules', false, false, 'source_id', NULL),
    ('ix_recovery_executions_lease', 'recovery_executions', false, false, 'lease_expires_at', 'worker_id IS NOT NULL AND completed_at IS NULL')
  ) AS list (name, table_name, is_unique, is_constraint, columns, condition)
  LOOP
    chosen := wanted.name;
    IF EXISTS (SELECT FROM pg_class WHERE relname = chosen AND relnamespace = quote_ident(current_schema())::regnamespace)
      AND NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(format('%I.%I', current_schema(), chosen))
        AND indrelid = to_regclass(format('%I.%I', current_schema(), wanted.table_name)))
    THEN
      chosen := left('backupd_' || wanted.name, 63);
    END IF;
    IF to_regclass(format('%I.%I', current_schema(), chosen)) IS NOT NULL THEN
      CONTINUE;
    ELSIF wanted.is_constraint THEN
      EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I UNIQUE (%s)', wanted.table_name, chosen, wanted.columns);
    ELSE
      EXECUTE format('CREATE %s %I ON %I (%s) %s', CASE WHEN wanted.is_unique THEN 'UNIQUE INDEX' ELSE 'INDEX' END, chosen,
        wanted.table_name, wanted.columns, coalesce('WHERE ' || wanted.condition, ''));
    END IF;
  END LOOP;
END
$adopt$;
--> statement-breakpoint
-- Foreign keys: one on the same column to the same table will do, whatever its name. Where rows point to nothing, it holds for
-- new rows only.
DO $adopt$
DECLARE
  wanted record;
  head text;
  body text;
BEGIN
  FOR wanted IN SELECT * FROM (VALUES
    ('backup_executions_source_id_fkey', 'backup_executions', 'source_id', 'backup_sources', 'no action'),
    ('backup_executions_retry_of_fkey', 'backup_executions', 'retry_of', 'backup_executions', 'set null'),
    ('backup_executions_copy_of_fkey', 'backup_executions', 'copy_of', 'backup_executions', 'set null'),
    ('backup_schedules_source_id_fkey', 'backup_schedules', 'source_id', 'backup_sources', 'no action'),
    ('backup_schedules_copy_to_fkey', 'backup_schedules', 'copy_to', 'storage_backend_configs', 'no action')
  ) AS list (name, table_name, column_name, referenced, on_delete)
  LOOP
    CONTINUE WHEN EXISTS (
      SELECT FROM pg_constraint k
      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = wanted.column_name
      WHERE k.contype = 'f' AND k.conkey = ARRAY[a.attnum]
        AND k.conrelid = to_regclass(format('%I.%I', current_schema(), wanted.table_name))
        AND k.confrelid = to_regclass(format('%I.%I', current_schema(), wanted.referenced)));
    -- A name that another constraint of the table has is left to PostgreSQL to choose.
    head := CASE WHEN EXISTS (SELECT FROM pg_constraint WHERE conname = wanted.name
        AND conrelid = to_regclass(format('%I.%I', current_schema(), wanted.table_name)))
      THEN '' ELSE format('CONSTRAINT %I ', wanted.name) END;
    body := format('ALTER TABLE %I ADD %sFOREIGN KEY (%I) REFERENCES %I (id) ON DELETE %s',
      wanted.table_name, head, wanted.column_name, wanted.referenced, wanted.on_delete);
    BEGIN
      EXECUTE body;
    EXCEPTION WHEN foreign_key_violation THEN
      EXECUTE body || ' NOT VALID';
    END;
  END LOOP;
END
$adopt$;
