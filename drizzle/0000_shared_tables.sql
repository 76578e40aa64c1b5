-- Written by scripts/adoption-sql.mjs from the snapshot of the same number in meta/.
-- Every step adds what is missing and leaves alone what is there, whoever made it: no type is changed and nothing is dropped.
CREATE TABLE IF NOT EXISTS "projects" ("id" integer PRIMARY KEY);
CREATE TABLE IF NOT EXISTS "users" ("id" integer PRIMARY KEY);
CREATE TABLE IF NOT EXISTS "backup_cleanup_history" ();
CREATE TABLE IF NOT EXISTS "backup_retention_policies" ();
CREATE TABLE IF NOT EXISTS "storage_backend_configs" ();
CREATE TABLE IF NOT EXISTS "backup_executions" ();
CREATE TABLE IF NOT EXISTS "backup_health_checks" ();
CREATE TABLE IF NOT EXISTS "backup_schedules" ();
CREATE TABLE IF NOT EXISTS "recovery_executions" ();
CREATE TABLE IF NOT EXISTS "audit_logs" ();
CREATE TABLE IF NOT EXISTS "backup_audit_logs" ();
CREATE TABLE IF NOT EXISTS "meilisearch_keys" ();
CREATE TABLE IF NOT EXISTS "meilisearch_security_events" ();
CREATE TABLE IF NOT EXISTS "meilisearch_usage_logs" ();
--> statement-breakpoint
-- Columns: those that are missing are added; those that have no default in the database get the one of the schema.
DO $adopt$
DECLARE
  change record;
  has_rows boolean;
BEGIN
  FOR change IN
    WITH wanted (place, table_name, column_name, type, required, default_value) AS (VALUES
    (0, 'backup_cleanup_history', 'id', 'serial PRIMARY KEY', false, NULL),
    (1, 'backup_cleanup_history', 'cleanup_id', 'varchar(100)', true, NULL),
    (2, 'backup_cleanup_history', 'retention_policy_id', 'integer', true, NULL),
    (3, 'backup_cleanup_history', 'storage_backend_id', 'integer', true, NULL),
    (4, 'backup_cleanup_history', 'triggered_by', 'varchar(100)', true, NULL),
    (5, 'backup_cleanup_history', 'started_at', 'timestamp with time zone', true, NULL),
    (6, 'backup_cleanup_history', 'completed_at', 'timestamp with time zone', false, NULL),
    (7, 'backup_cleanup_history', 'duration_seconds', 'integer', false, NULL),
    (8, 'backup_cleanup_history', 'backups_evaluated', 'integer', true, '0'),
    (9, 'backup_cleanup_history', 'backups_deleted', 'integer', true, '0'),
    (10, 'backup_cleanup_history', 'backups_kept', 'integer', true, '0'),
    (11, 'backup_cleanup_history', 'space_freed_bytes', 'bigint', true, '0'),
    (12, 'backup_cleanup_history', 'deleted_backup_ids', 'jsonb', true, '''[]'''),
    (13, 'backup_cleanup_history', 'status', 'varchar(50)', true, NULL),
    (14, 'backup_cleanup_history', 'error_message', 'text', false, NULL),
    (15, 'backup_cleanup_history', 'warnings', 'jsonb', false, NULL),
    (16, 'backup_cleanup_history', 'created_at', 'timestamp with time zone', true, 'now()'),
    (17, 'backup_cleanup_history', 'updated_at', 'timestamp with time zone', false, NULL),
    (18, 'backup_retention_policies', 'id', 'serial PRIMARY KEY', false, NULL),
    (19, 'backup_retention_policies', 'name', 'varchar(200)', true, NULL),
    (20, 'backup_retention_policies', 'storage_backend_id', 'integer', true, NULL),
    (21, 'backup_retention_policies', 'backup_type', 'varchar(20)', false, NULL),
    (22, 'backup_retention_policies', 'retention_days', 'integer', true, '30'),
    (23, 'backup_retention_policies', 'keep_daily_for_days', 'integer', true, '7'),
    (24, 'backup_retention_policies', 'keep_weekly_for_weeks', 'integer', true, '4'),
    (25, 'backup_retention_policies', 'keep_monthly_for_months', 'integer', true, '12'),
    (26, 'backup_retention_policies', 'keep_yearly_for_years', 'integer', true, '5'),
    (27, 'backup_retention_policies', 'min_backups_to_keep', 'integer', true, '3'),
    (28, 'backup_retention_policies', 'is_active', 'boolean', true, 'true'),
    (29, 'backup_retention_policies', 'last_cleanup_at', 'timestamp with time zone', false, NULL),
    (30, 'backup_retention_policies', 'total_cleanups', 'integer', true, '0'),
    (31, 'backup_retention_policies', 'total_backups_deleted', 'integer', true, '0'),
    (32, 'backup_retention_policies', 'total_space_freed_bytes', 'bigint', true, '0'),
    (33, 'backup_retention_policies', 'policy_rules', 'jsonb', false, NULL),
    (34, 'backup_retention_policies', 'created_at', 'timestamp with time zone', true, 'now()'),
    (35, 'backup_retention_policies', 'updated_at', 'timestamp with time zone', false, NULL),
    (36, 'storage_backend_configs', 'id', 'serial PRIMARY KEY', false, NULL),
    (37, 'storage_backend_configs', 'name', 'varchar(100)', true, NULL),
    (38, 'storage_backend_configs', 'backend_type', 'varchar(20)', true, NULL),
    (39, 'storage_backend_configs', 'config_data', 'jsonb', true, NULL),
    (40, 'storage_backend_configs', 'is_active', 'boolean', true, 'true'),
    (41, 'storage_backend_configs', 'is_healthy', 'boolean', true, 'true'),
    (42, 'storage_backend_configs', 'last_health_check', 'timestamp with time zone', false, NULL),
    (43, 'storage_backend_configs', 'health_check_message', 'varchar(500)', false, NULL),
    (44, 'storage_backend_configs', 'total_backups', 'integer', true, '0'),
    (45, 'storage_backend_configs', 'total_size_bytes', 'bigint', true, '0'),
    (46, 'storage_backend_configs', 'description', 'varchar(500)', false, NULL),
    (47, 'storage_backend_configs', 'tags', 'jsonb', false, NULL),
    (48, 'storage_backend_configs', 'created_at', 'timestamp with time zone', true, 'now()'),
    (49, 'storage_backend_configs', 'updated_at', 'timestamp with time zone', false, NULL),
    (50, 'backup_executions', 'id', 'serial PRIMARY KEY', false, NULL),
    (51, 'backup_executions', 'backup_id', 'varchar(100)', true, NULL),
    (52, 'backup_executions', 'schedule_id', 'integer', false, NULL),
    (53, 'backup_executions', 'storage_backend_id', 'integer', true, NULL),
    (54, 'backup_executions', 'backup_type', 'varchar(20)', true, NULL),
    (55, 'backup_executions', 'triggered_by', 'varchar(100)', true, NULL),
    (56, 'backup_executions', 'trigger_user_id', 'integer', false, NULL),
    (57, 'backup_executions', 'status', 'varchar(20)', true, NULL),
    (58, 'backup_executions', 'started_at', 'timestamp with time zone', true, NULL),
    (59, 'backup_executions', 'completed_at', 'timestamp with time zone', false, NULL),
    (60, 'backup_executions', 'duration_seconds', 'integer', false, NULL),
    (61, 'backup_executions', 'size_bytes', 'bigint', true, '0'),
    (62, 'backup_executions', 'compressed_size_bytes', 'bigint', true, '0'),
    (63, 'backup_executions', 'compression_ratio', 'double precision', true, '1.0'),
    (64, 'backup_executions', 'included_components', 'jsonb', true, NULL),
    (65, 'backup_executions', 'storage_location', 'varchar(1000)', false, NULL),
    (66, 'backup_executions', 'checksum', 'varchar(128)', false, NULL),
    (67, 'backup_executions', 'encryption_key_hash', 'varchar(128)', false, NULL),
    (68, 'backup_executions', 'verification_status', 'varchar(50)', true, '''pending'''),
    (69, 'backup_executions', 'verified_at', 'timestamp with time zone', false, NULL),
    (70, 'backup_executions', 'verification_checksum', 'varchar(128)', false, NULL),
    (71, 'backup_executions', 'error_message', 'text', false, NULL),
    (72, 'backup_executions', 'error_details', 'jsonb', false, NULL),
    (73, 'backup_executions', 'warnings', 'jsonb', false, NULL),
    (74, 'backup_executions', 'backup_config', 'jsonb', false, NULL),
    (75, 'backup_executions', 'execution_metadata', 'jsonb', false, NULL),
    (76, 'backup_executions', 'created_at', 'timestamp with time zone', true, 'now()'),
    (77, 'backup_executions', 'updated_at', 'timestamp with time zone', false, NULL),
    (78, 'backup_health_checks', 'id', 'serial PRIMARY KEY', false, NULL),
    (79, 'backup_health_checks', 'check_id', 'varchar(100)', true, NULL),
    (80, 'backup_health_checks', 'check_type', 'varchar(50)', true, NULL),
    (81, 'backup_health_checks', 'target_id', 'integer', false, NULL),
    (82, 'backup_health_checks', 'target_type', 'varchar(50)', false, NULL),
    (83, 'backup_health_checks', 'checked_at', 'timestamp with time zone', true, NULL),
    (84, 'backup_health_checks', 'check_duration_seconds', 'double precision', false, NULL),
    (85, 'backup_health_checks', 'status', 'varchar(50)', true, NULL),
    (86, 'backup_health_checks', 'health_score', 'double precision', false, NULL),
    (87, 'backup_health_checks', 'check_results', 'jsonb', false, NULL),
    (88, 'backup_health_checks', 'issues_found', 'jsonb', false, NULL),
    (89, 'backup_health_checks', 'recommendations', 'jsonb', false, NULL),
    (90, 'backup_health_checks', 'metrics', 'jsonb', false, NULL),
    (91, 'backup_health_checks', 'created_at', 'timestamp with time zone', true, 'now()'),
    (92, 'backup_health_checks', 'updated_at', 'timestamp with time zone', false, NULL),
    (93, 'backup_schedules', 'id', 'serial PRIMARY KEY', false, NULL),
    (94, 'backup_schedules', 'name', 'varchar(200)', true, NULL),
    (95, 'backup_schedules', 'cron_expression', 'varchar(100)', true, NULL),
    (96, 'backup_schedules', 'timezone', 'varchar(50)', true, '''UTC'''),
    (97, 'backup_schedules', 'backup_type', 'varchar(20)', true, NULL),
    (98, 'backup_schedules', 'storage_backend_id', 'integer', true, NULL),
    (99, 'backup_schedules', 'compression_type', 'varchar(10)', true, '''gzip'''),
    (100, 'backup_schedules', 'encrypt_backup', 'boolean', true, 'true'),
    (101, 'backup_schedules', 'verify_integrity', 'boolean', true, 'true'),
    (102, 'backup_schedules', 'retention_days', 'integer', true, '30'),
    (103, 'backup_schedules', 'include_patterns', 'jsonb', false, NULL),
    (104, 'backup_schedules', 'exclude_patterns', 'jsonb', false, NULL),
    (105, 'backup_schedules', 'bandwidth_limit_mbps', 'integer', false, NULL),
    (106, 'backup_schedules', 'max_parallel_uploads', 'integer', true, '3'),
    (107, 'backup_schedules', 'is_active', 'boolean', true, 'true'),
    (108, 'backup_schedules', 'last_run_at', 'timestamp with time zone', false, NULL),
    (109, 'backup_schedules', 'next_run_at', 'timestamp with time zone', false, NULL),
    (110, 'backup_schedules', 'last_status', 'varchar(50)', false, NULL),
    (111, 'backup_schedules', 'total_runs', 'integer', true, '0'),
    (112, 'backup_schedules', 'successful_runs', 'integer', true, '0'),
    (113, 'backup_schedules', 'failed_runs', 'integer', true, '0'),
    (114, 'backup_schedules', 'description', 'varchar(1000)', false, NULL),
    (115, 'backup_schedules', 'tags', 'jsonb', false, NULL),
    (116, 'backup_schedules', 'created_at', 'timestamp with time zone', true, 'now()'),
    (117, 'backup_schedules', 'updated_at', 'timestamp with time zone', false, NULL),
    (118, 'recovery_executions', 'id', 'serial PRIMARY KEY', false, NULL),
    (119, 'recovery_executions', 'recovery_id', 'varchar(100)', true, NULL),
    (120, 'recovery_executions', 'backup_execution_id', 'integer', false, NULL),
    (121, 'recovery_executions', 'source_backup_id', 'varchar(100)', true, NULL),
    (122, 'recovery_executions', 'recovery_type', 'varchar(30)', true, NULL),
    (123, 'recovery_executions', 'restore_target', 'varchar(50)', true, NULL),
    (124, 'recovery_executions', 'target_timestamp', 'timestamp with time zone', false, NULL),
    (125, 'recovery_executions', 'target_system', 'varchar(200)', true, NULL),
    (126, 'recovery_executions', 'custom_restore_path', 'varchar(1000)', false, NULL),
    (127, 'recovery_executions', 'status', 'varchar(20)', true, NULL),
    (128, 'recovery_executions', 'triggered_by', 'varchar(100)', true, NULL),
    (129, 'recovery_executions', 'trigger_user_id', 'integer', false, NULL),
    (130, 'recovery_executions', 'started_at', 'timestamp with time zone', true, NULL),
    (131, 'recovery_executions', 'completed_at', 'timestamp with time zone', false, NULL),
    (132, 'recovery_executions', 'duration_seconds', 'integer', false, NULL),
    (133, 'recovery_executions', 'restore_components', 'jsonb', true, NULL),
    (134, 'recovery_executions', 'restored_components', 'jsonb', true, '''[]'''),
    (135, 'recovery_executions', 'pre_recovery_backup_id', 'varchar(100)', false, NULL),
    (136, 'recovery_executions', 'validation_performed', 'boolean', true, 'false'),
    (137, 'recovery_executions', 'validation_results', 'jsonb', false, NULL),
    (138, 'recovery_executions', 'validation_passed', 'boolean', false, NULL),
    (139, 'recovery_executions', 'error_message', 'text', false, NULL),
    (140, 'recovery_executions', 'error_details', 'jsonb', false, NULL),
    (141, 'recovery_executions', 'warnings', 'jsonb', false, NULL),
    (142, 'recovery_executions', 'recovery_config', 'jsonb', false, NULL),
    (143, 'recovery_executions', 'created_at', 'timestamp with time zone', true, 'now()'),
    (144, 'recovery_executions', 'updated_at', 'timestamp with time zone', false, NULL),
    (145, 'audit_logs', 'id', 'serial PRIMARY KEY', false, NULL),
    (146, 'audit_logs', 'user_id', 'integer', false, NULL),
    (147, 'audit_logs', 'admin_user_id', 'integer', false, NULL),
    (148, 'audit_logs', 'session_id', 'varchar(255)', false, NULL),
    (149, 'audit_logs', 'request_id', 'varchar(100)', false, NULL),
    (150, 'audit_logs', 'action', 'varchar(100)', true, NULL),
    (151, 'audit_logs', 'resource_type', 'varchar(50)', true, NULL),
    (152, 'audit_logs', 'resource_id', 'varchar(255)', false, NULL),
    (153, 'audit_logs', 'category', 'varchar(50)', true, NULL),
    (154, 'audit_logs', 'severity', 'varchar(20)', true, '''medium'''),
    (155, 'audit_logs', 'ip_address', 'varchar(45)', false, NULL),
    (156, 'audit_logs', 'user_agent', 'varchar(512)', false, NULL),
    (157, 'audit_logs', 'request_method', 'varchar(10)', false, NULL),
    (158, 'audit_logs', 'request_url', 'varchar(2048)', false, NULL),
    (159, 'audit_logs', 'request_headers', 'jsonb', false, NULL),
    (160, 'audit_logs', 'request_body', 'jsonb', false, NULL),
    (161, 'audit_logs', 'response_status', 'integer', false, NULL),
    (162, 'audit_logs', 'response_headers', 'jsonb', false, NULL),
    (163, 'audit_logs', 'response_body', 'jsonb', false, NULL),
    (164, 'audit_logs', 'success', 'boolean', true, 'true'),
    (165, 'audit_logs', 'error_message', 'text', false, NULL),
    (166, 'audit_logs', 'error_code', 'varchar(100)', false, NULL),
    (167, 'audit_logs', 'affected_count', 'integer', true, '0'),
    (168, 'audit_logs', 'before_values', 'jsonb', false, NULL),
    (169, 'audit_logs', 'after_values', 'jsonb', false, NULL),
    (170, 'audit_logs', 'changed_fields', 'jsonb', false, NULL),
    (171, 'audit_logs', 'details', 'jsonb', false, NULL),
    (172, 'audit_logs', 'tags', 'jsonb', false, NULL),
    (173, 'audit_logs', 'compliance_flags', 'jsonb', false, NULL),
    (174, 'audit_logs', 'sensitive_data_accessed', 'boolean', true, 'false'),
    (175, 'audit_logs', 'gdpr_relevant', 'boolean', true, 'false'),
    (176, 'audit_logs', 'sox_relevant', 'boolean', true, 'false'),
    (177, 'audit_logs', 'hipaa_relevant', 'boolean', true, 'false'),
    (178, 'audit_logs', 'checksum', 'varchar(64)', false, NULL),
    (179, 'audit_logs', 'signature', 'varchar(512)', false, NULL),
    (180, 'audit_logs', 'encrypted', 'boolean', true, 'false'),
    (181, 'audit_logs', 'processing_time_ms', 'integer', false, NULL),
    (182, 'audit_logs', 'database_queries', 'integer', false, NULL),
    (183, 'audit_logs', 'memory_usage_mb', 'double precision', false, NULL),
    (184, 'audit_logs', 'country_code', 'varchar(2)', false, NULL),
    (185, 'audit_logs', 'city', 'varchar(100)', false, NULL),
    (186, 'audit_logs', 'device_type', 'varchar(50)', false, NULL),
    (187, 'audit_logs', 'browser_info', 'varchar(255)', false, NULL),
    (188, 'audit_logs', 'created_at', 'timestamp with time zone', true, 'now()'),
    (189, 'audit_logs', 'updated_at', 'timestamp with time zone', false, NULL),
    (190, 'audit_logs', 'retention_until', 'timestamp with time zone', false, NULL),
    (191, 'audit_logs', 'archived', 'boolean', true, 'false'),
    (192, 'audit_logs', 'archived_at', 'timestamp with time zone', false, NULL),
    (193, 'backup_audit_logs', 'id', 'serial PRIMARY KEY', false, NULL),
    (194, 'backup_audit_logs', 'audit_id', 'varchar(100)', true, NULL),
    (195, 'backup_audit_logs', 'event_type', 'varchar(100)', true, NULL),
    (196, 'backup_audit_logs', 'event_category', 'varchar(50)', true, NULL),
    (197, 'backup_audit_logs', 'user_id', 'integer', false, NULL),
    (198, 'backup_audit_logs', 'username', 'varchar(200)', false, NULL),
    (199, 'backup_audit_logs', 'user_ip', 'varchar(45)', false, NULL),
    (200, 'backup_audit_logs', 'user_agent', 'varchar(500)', false, NULL),
    (201, 'backup_audit_logs', 'resource_type', 'varchar(50)', false, NULL),
    (202, 'backup_audit_logs', 'resource_id', 'varchar(100)', false, NULL),
    (203, 'backup_audit_logs', 'resource_name', 'varchar(200)', false, NULL),
    (204, 'backup_audit_logs', 'action', 'varchar(100)', true, NULL),
    (205, 'backup_audit_logs', 'status', 'varchar(50)', true, NULL),
    (206, 'backup_audit_logs', 'event_data', 'jsonb', false, NULL),
    (207, 'backup_audit_logs', 'before_state', 'jsonb', false, NULL),
    (208, 'backup_audit_logs', 'after_state', 'jsonb', false, NULL),
    (209, 'backup_audit_logs', 'risk_level', 'varchar(20)', true, '''low'''),
    (210, 'backup_audit_logs', 'compliance_tags', 'jsonb', false, NULL),
    (211, 'backup_audit_logs', 'session_id', 'varchar(100)', false, NULL),
    (212, 'backup_audit_logs', 'correlation_id', 'varchar(100)', false, NULL),
    (213, 'backup_audit_logs', 'created_at', 'timestamp with time zone', true, 'now()'),
    (214, 'backup_audit_logs', 'updated_at', 'timestamp with time zone', false, NULL),
    (215, 'meilisearch_keys', 'id', 'serial PRIMARY KEY', false, NULL),
    (216, 'meilisearch_keys', 'project_id', 'integer', true, NULL),
    (217, 'meilisearch_keys', 'key_uid', 'varchar(256)', true, NULL),
    (218, 'meilisearch_keys', 'key_type', 'varchar(50)', true, NULL),
    (219, 'meilisearch_keys', 'key_name', 'varchar(255)', false, NULL),
    (220, 'meilisearch_keys', 'key_description', 'text', false, NULL),
    (221, 'meilisearch_keys', 'actions', 'jsonb', false, NULL),
    (222, 'meilisearch_keys', 'indexes', 'jsonb', false, NULL),
    (223, 'meilisearch_keys', 'expires_at', 'timestamp with time zone', false, NULL),
    (224, 'meilisearch_keys', 'is_active', 'boolean', true, 'true'),
    (225, 'meilisearch_keys', 'revoked_at', 'timestamp with time zone', false, NULL),
    (226, 'meilisearch_keys', 'revoked_reason', 'varchar(255)', false, NULL),
    (227, 'meilisearch_keys', 'usage_count', 'integer', true, '0'),
    (228, 'meilisearch_keys', 'last_used_at', 'timestamp with time zone', false, NULL),
    (229, 'meilisearch_keys', 'created_at', 'timestamp with time zone', true, 'now()'),
    (230, 'meilisearch_keys', 'updated_at', 'timestamp with time zone', true, 'now()'),
    (231, 'meilisearch_security_events', 'id', 'serial PRIMARY KEY', false, NULL),
    (232, 'meilisearch_security_events', 'key_id', 'integer', false, NULL),
    (233, 'meilisearch_security_events', 'event_type', 'varchar(100)', true, NULL),
    (234, 'meilisearch_security_events', 'severity', 'varchar(20)', true, NULL),
    (235, 'meilisearch_security_events', 'description', 'text', true, NULL),
    (236, 'meilisearch_security_events', 'event_metadata', 'jsonb', true, '''{}'''),
    (237, 'meilisearch_security_events', 'source_ip', 'varchar(45)', false, NULL),
    (238, 'meilisearch_security_events', 'user_id', 'integer', false, NULL),
    (239, 'meilisearch_security_events', 'automated', 'boolean', true, 'false'),
    (240, 'meilisearch_security_events', 'created_at', 'timestamp with time zone', true, 'now()'),
    (241, 'meilisearch_usage_logs', 'id', 'serial PRIMARY KEY', false, NULL),
    (242, 'meilisearch_usage_logs', 'key_id', 'integer', true, NULL),
    (243, 'meilisearch_usage_logs', 'operation', 'varchar(100)', true, NULL),
    (244, 'meilisearch_usage_logs', 'index_name', 'varchar(255)', true, NULL),
    (245, 'meilisearch_usage_logs', 'query', 'text', false, NULL),
    (246, 'meilisearch_usage_logs', 'filters', 'jsonb', false, NULL),
    (247, 'meilisearch_usage_logs', 'result_count', 'integer', false, NULL),
    (248, 'meilisearch_usage_logs', 'response_time_ms', 'integer', false, NULL),
    (249, 'meilisearch_usage_logs', 'success', 'boolean', true, 'true'),
    (250, 'meilisearch_usage_logs', 'error_message', 'text', false, NULL),
    (251, 'meilisearch_usage_logs', 'ip_address', 'varchar(45)', false, NULL),
    (252, 'meilisearch_usage_logs', 'user_agent', 'text', false, NULL),
    (253, 'meilisearch_usage_logs', 'request_id', 'varchar(128)', false, NULL),
    (254, 'meilisearch_usage_logs', 'created_at', 'timestamp with time zone', true, 'now()')
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
    ('ix_backup_cleanup_history_cleanup_id', 'backup_cleanup_history', true, false, 'cleanup_id', NULL),
    ('ix_backup_cleanup_history_retention_policy_id', 'backup_cleanup_history', false, false, 'retention_policy_id', NULL),
    ('ix_backup_cleanup_history_status', 'backup_cleanup_history', false, false, 'status', NULL),
    ('ix_backup_cleanup_history_storage_backend_id', 'backup_cleanup_history', false, false, 'storage_backend_id', NULL),
    ('ix_backup_retention_policies_backup_type', 'backup_retention_policies', false, false, 'backup_type', NULL),
    ('ix_backup_retention_policies_is_active', 'backup_retention_policies', false, false, 'is_active', NULL),
    ('ix_backup_retention_policies_name', 'backup_retention_policies', false, false, 'name', NULL),
    ('ix_backup_retention_policies_storage_backend_id', 'backup_retention_policies', false, false, 'storage_backend_id', NULL),
    ('ix_storage_backend_configs_backend_type', 'storage_backend_configs', false, false, 'backend_type', NULL),
    ('ix_storage_backend_configs_name', 'storage_backend_configs', false, false, 'name', NULL),
    ('ix_backup_executions_backup_id', 'backup_executions', true, false, 'backup_id', NULL),
    ('ix_backup_executions_backup_type', 'backup_executions', false, false, 'backup_type', NULL),
    ('ix_backup_executions_schedule_id', 'backup_executions', false, false, 'schedule_id', NULL),
    ('ix_backup_executions_status', 'backup_executions', false, false, 'status', NULL),
    ('ix_backup_executions_storage_backend_id', 'backup_executions', false, false, 'storage_backend_id', NULL),
    ('ix_backup_health_checks_check_id', 'backup_health_checks', true, false, 'check_id', NULL),
    ('ix_backup_health_checks_check_type', 'backup_health_checks', false, false, 'check_type', NULL),
    ('ix_backup_health_checks_status', 'backup_health_checks', false, false, 'status', NULL),
    ('ix_backup_health_checks_target_id', 'backup_health_checks', false, false, 'target_id', NULL),
    ('ix_backup_schedules_backup_type', 'backup_schedules', false, false, 'backup_type', NULL),
    ('ix_backup_schedules_is_active', 'backup_schedules', false, false, 'is_active', NULL),
    ('ix_backup_schedules_name', 'backup_schedules', false, false, 'name', NULL),
    ('ix_backup_schedules_storage_backend_id', 'backup_schedules', false, false, 'storage_backend_id', NULL),
    ('ix_recovery_executions_backup_execution_id', 'recovery_executions', false, false, 'backup_execution_id', NULL),
    ('ix_recovery_executions_recovery_id', 'recovery_executions', true, false, 'recovery_id', NULL),
    ('ix_recovery_executions_recovery_type', 'recovery_executions', false, false, 'recovery_type', NULL),
    ('ix_recovery_executions_source_backup_id', 'recovery_executions', false, false, 'source_backup_id', NULL),
    ('ix_recovery_executions_status', 'recovery_executions', false, false, 'status', NULL),
    ('ix_audit_logs_action', 'audit_logs', false, false, 'action', NULL),
    ('ix_audit_logs_action_resource', 'audit_logs', false, false, 'action, resource_type', NULL),
    ('ix_audit_logs_admin_created', 'audit_logs', false, false, 'admin_user_id, created_at', NULL),
    ('ix_audit_logs_admin_user_id', 'audit_logs', false, false, 'admin_user_id', NULL),
    ('ix_audit_logs_archived', 'audit_logs', false, false, 'archived', NULL),
    ('ix_audit_logs_category', 'audit_logs', false, false, 'category', NULL),
    ('ix_audit_logs_category_severity', 'audit_logs', false, false, 'category, severity', NULL),
    ('ix_audit_logs_compliance', 'audit_logs', false, false, 'gdpr_relevant, sox_relevant, hipaa_relevant', NULL),
    ('ix_audit_logs_created_at', 'audit_logs', false, false, 'created_at', NULL),
    ('ix_audit_logs_gdpr_relevant', 'audit_logs', false, false, 'gdpr_relevant', NULL),
    ('ix_audit_logs_hipaa_relevant', 'audit_logs', false, false, 'hipaa_relevant', NULL),
    ('ix_audit_logs_ip_address', 'audit_logs', false, false, 'ip_address', NULL),
    ('ix_audit_logs_ip_created', 'audit_logs', false, false, 'ip_address, created_at', NULL),
    ('ix_audit_logs_request_id', 'audit_logs', false, false, 'request_id', NULL),
    ('ix_audit_logs_resource_type', 'audit_logs', false, false, 'resource_type', NULL),
    ('ix_audit_logs_retention', 'audit_logs', false, false, 'retention_until, archived', NULL),
    ('ix_audit_logs_sensitive_data', 'audit_logs', false, false, 'sensitive_data_accessed, created_at', NULL),
    ('ix_audit_logs_sensitive_data_accessed', 'audit_logs', false, false, 'sensitive_data_accessed', NULL),
    ('ix_audit_logs_session_created', 'audit_logs', false, false, 'session_id, created_at', NULL),
    ('ix_audit_logs_session_id', 'audit_logs', false, false, 'session_id', NULL),
    ('ix_audit_logs_severity', 'audit_logs', false, false, 'severity', NULL),
    ('ix_audit_logs_sox_relevant', 'audit_logs', false, false, 'sox_relevant', NULL),
    ('ix_audit_logs_success', 'audit_logs', false, false, 'success', NULL),
    ('ix_audit_logs_user_created', 'audit_logs', false, false, 'user_id, created_at', NULL),
    ('ix_audit_logs_user_id', 'audit_logs', false, false, 'user_id', NULL),
    ('ix_backup_audit_logs_audit_id', 'backup_audit_logs', true, false, 'audit_id', NULL),
    ('ix_backup_audit_logs_event_category', 'backup_audit_logs', false, false, 'event_category', NULL),
    ('ix_backup_audit_logs_event_type', 'backup_audit_logs', false, false, 'event_type', NULL),
    ('ix_backup_audit_logs_user_id', 'backup_audit_logs', false, false, 'user_id', NULL),
    ('ix_meilisearch_keys_expires_at', 'meilisearch_keys', false, false, 'expires_at', NULL),
    ('ix_meilisearch_keys_is_active', 'meilisearch_keys', false, false, 'is_active', NULL),
    ('ix_meilisearch_keys_key_type', 'meilisearch_keys', false, false, 'key_type', NULL),
    ('ix_meilisearch_keys_project_id', 'meilisearch_keys', false, false, 'project_id', NULL),
    ('meilisearch_keys_key_uid_key', 'meilisearch_keys', true, true, 'key_uid', NULL),
    ('ix_meilisearch_security_events_created_at', 'meilisearch_security_events', false, false, 'created_at', NULL),
    ('ix_meilisearch_security_events_event_type', 'meilisearch_security_events', false, false, 'event_type', NULL),
    ('ix_meilisearch_security_events_key_id', 'meilisearch_security_events', false, false, 'key_id', NULL),
    ('ix_meilisearch_security_events_severity', 'meilisearch_security_events', false, false, 'severity', NULL),
    ('ix_meilisearch_security_events_user_id', 'meilisearch_security_events', false, false, 'user_id', NULL),
    ('ix_meilisearch_usage_logs_created_at', 'meilisearch_usage_logs', false, false, 'created_at', NULL),
    ('ix_meilisearch_usage_logs_key_created', 'meilisearch_usage_logs', false, false, 'key_id, created_at', NULL),
    ('ix_meilisearch_usage_logs_key_id', 'meilisearch_usage_logs', false, false, 'key_id', NULL),
    ('ix_meilisearch_usage_logs_operation', 'meilisearch_usage_logs', false, false, 'operation', NULL),
    ('ix_meilisearch_usage_logs_success', 'meilisearch_usage_logs', false, false, 'success', NULL)
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
    ('backup_cleanup_history_retention_policy_id_fkey', 'backup_cleanup_history', 'retention_policy_id', 'backup_retention_policies', 'no action'),
    ('backup_cleanup_history_storage_backend_id_fkey', 'backup_cleanup_history', 'storage_backend_id', 'storage_backend_configs', 'no action'),
    ('backup_retention_policies_storage_backend_id_fkey', 'backup_retention_policies', 'storage_backend_id', 'storage_backend_configs', 'no action'),
    ('backup_executions_schedule_id_fkey', 'backup_executions', 'schedule_id', 'backup_schedules', 'no action'),
    ('backup_executions_storage_backend_id_fkey', 'backup_executions', 'storage_backend_id', 'storage_backend_configs', 'no action'),
    ('backup_executions_trigger_user_id_fkey', 'backup_executions', 'trigger_user_id', 'users', 'no action'),
    ('backup_schedules_storage_backend_id_fkey', 'backup_schedules', 'storage_backend_id', 'storage_backend_configs', 'no action'),
    ('recovery_executions_backup_execution_id_fkey', 'recovery_executions', 'backup_execution_id', 'backup_executions', 'no action'),
    ('recovery_executions_trigger_user_id_fkey', 'recovery_executions', 'trigger_user_id', 'users', 'no action'),
    ('audit_logs_user_id_fkey', 'audit_logs', 'user_id', 'users', 'no action'),
    ('audit_logs_admin_user_id_fkey', 'audit_logs', 'admin_user_id', 'users', 'no action'),
    ('backup_audit_logs_user_id_fkey', 'backup_audit_logs', 'user_id', 'users', 'no action'),
    ('meilisearch_keys_project_id_fkey', 'meilisearch_keys', 'project_id', 'projects', 'cascade'),
    ('meilisearch_security_events_key_id_fkey', 'meilisearch_security_events', 'key_id', 'meilisearch_keys', 'no action'),
    ('meilisearch_security_events_user_id_fkey', 'meilisearch_security_events', 'user_id', 'users', 'no action'),
    ('meilisearch_usage_logs_key_id_fkey', 'meilisearch_usage_logs', 'key_id', 'meilisearch_keys', 'no action')
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
