-- Written by scripts/adoption-sql.mjs from the snapshot of the same number in meta/.
-- Every step adds what is missing and leaves alone what is there, whoever made it: no type is changed and nothing is dropped.
CREATE TABLE IF NOT EXISTS "backup_notifications" ();
CREATE TABLE IF NOT EXISTS "backup_notifiers" ();
--> statement-breakpoint
-- Columns: those that are missing are added; those that have no default in the database get the one of the schema.
DO $adopt$
DECLARE
  change record;
  has_rows boolean;
BEGIN
  FOR change IN
    WITH wanted (place, table_name, column_name, type, required, default_value) AS (VALUES
    (0, 'backup_notifications', 'id', 'serial PRIMARY KEY', false, NULL),
    (1, 'backup_notifications', 'notifier_id', 'integer', true, NULL),
    (2, 'backup_notifications', 'event', 'varchar(50)', true, NULL),
    (3, 'backup_notifications', 'severity', 'varchar(20)', true, NULL),
    (4, 'backup_notifications', 'dedup_key', 'varchar(300)', true, NULL),
    (5, 'backup_notifications', 'payload', 'jsonb', true, NULL),
    (6, 'backup_notifications', 'status', 'varchar(20)', true, NULL),
    (7, 'backup_notifications', 'attempts', 'integer', true, '0'),
    (8, 'backup_notifications', 'not_before', 'timestamp with time zone', true, 'now()'),
    (9, 'backup_notifications', 'worker_id', 'text', false, NULL),
    (10, 'backup_notifications', 'lease_expires_at', 'timestamp with time zone', false, NULL),
    (11, 'backup_notifications', 'last_error', 'text', false, NULL),
    (12, 'backup_notifications', 'created_at', 'timestamp with time zone', true, 'now()'),
    (13, 'backup_notifications', 'sent_at', 'timestamp with time zone', false, NULL),
    (14, 'backup_notifiers', 'id', 'serial PRIMARY KEY', false, NULL),
    (15, 'backup_notifiers', 'name', 'varchar(200)', true, NULL),
    (16, 'backup_notifiers', 'type', 'varchar(20)', true, NULL),
    (17, 'backup_notifiers', 'config', 'jsonb', true, NULL),
    (18, 'backup_notifiers', 'schedules', 'jsonb', false, NULL),
    (19, 'backup_notifiers', 'events', 'jsonb', false, NULL),
    (20, 'backup_notifiers', 'min_severity', 'varchar(20)', true, '''info'''),
    (21, 'backup_notifiers', 'is_active', 'boolean', true, 'true'),
    (22, 'backup_notifiers', 'description', 'varchar(1000)', false, NULL),
    (23, 'backup_notifiers', 'last_sent_at', 'timestamp with time zone', false, NULL),
    (24, 'backup_notifiers', 'last_status', 'varchar(50)', false, NULL),
    (25, 'backup_notifiers', 'last_error', 'text', false, NULL),
    (26, 'backup_notifiers', 'created_at', 'timestamp with time zone', true, 'now()'),
    (27, 'backup_notifiers', 'updated_at', 'timestamp with time zone', false, NULL),
    (28, 'backup_executions', 'pinned', 'boolean', true, 'false'),
    (29, 'backup_executions', 'expiring_at', 'timestamp with time zone', false, NULL),
    (30, 'backup_schedules', 'hooks', 'jsonb', false, NULL),
    (31, 'backup_schedules', 'managed_by', 'varchar(50)', false, NULL),
    (32, 'backup_audit_logs', 'chain_seq', 'bigint', false, NULL),
    (33, 'backup_audit_logs', 'prev_hash', 'varchar(64)', false, NULL),
    (34, 'backup_audit_logs', 'hash', 'varchar(64)', false, NULL)
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
    ('ix_backup_notifications_dedup', 'backup_notifications', true, false, 'notifier_id, dedup_key', NULL),
    ('ix_backup_notifications_due', 'backup_notifications', false, false, 'not_before', 'status = ''pending'''),
    ('ix_backup_notifiers_name', 'backup_notifiers', true, false, 'name', NULL),
    ('ix_backup_audit_logs_chain_seq', 'backup_audit_logs', true, false, 'chain_seq', NULL)
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
    ('backup_notifications_notifier_id_fkey', 'backup_notifications', 'notifier_id', 'backup_notifiers', 'cascade')
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
