DROP TRIGGER IF EXISTS backupd_audit_guard ON backup_audit_logs;
DROP TRIGGER IF EXISTS backupd_audit_guard_truncate ON backup_audit_logs;
DROP FUNCTION IF EXISTS backupd_audit_guard();
