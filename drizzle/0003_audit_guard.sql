-- Entries of the audit trail's chain can be added and read, and nothing else. Rows without a hash, which other programs wrote into
-- this shared table, are left to those programs. Taken back by the file of the same name that ends in .down.sql.
CREATE OR REPLACE FUNCTION backupd_audit_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
DECLARE
  chained boolean;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE hash IS NOT NULL)', TG_RELID::regclass) INTO chained;
    IF NOT chained THEN
      RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the audit trail of backupd cannot be emptied: % holds entries of its chain', TG_TABLE_NAME
      USING ERRCODE = 'restrict_violation', HINT = 'Entries are only ever added. "backupd audit export" writes them to a file.';
  END IF;
  RAISE EXCEPTION 'entry % of the audit trail of backupd cannot be %', OLD.chain_seq, CASE TG_OP WHEN 'DELETE' THEN 'removed' ELSE 'changed' END
    USING ERRCODE = 'restrict_violation', HINT = 'Entries are only ever added. "backupd audit verify" checks them.';
END
$guard$;
--> statement-breakpoint
DROP TRIGGER IF EXISTS backupd_audit_guard ON backup_audit_logs;
DROP TRIGGER IF EXISTS backupd_audit_guard_truncate ON backup_audit_logs;
CREATE TRIGGER backupd_audit_guard BEFORE UPDATE OR DELETE ON backup_audit_logs
  FOR EACH ROW WHEN (OLD.hash IS NOT NULL) EXECUTE FUNCTION backupd_audit_guard();
CREATE TRIGGER backupd_audit_guard_truncate BEFORE TRUNCATE ON backup_audit_logs
  FOR EACH STATEMENT EXECUTE FUNCTION backupd_audit_guard();
-- Also in sessions that call themselves replicas, which skip ordinary triggers.
ALTER TABLE backup_audit_logs ENABLE ALWAYS TRIGGER backupd_audit_guard, ENABLE ALWAYS TRIGGER backupd_audit_guard_truncate;
--> statement-breakpoint
-- Links that earlier versions kept inside of event_data do not count any more: where no entry has one in its columns, the chain begins anew.
DELETE FROM backup_audit_chain WHERE NOT EXISTS (SELECT FROM backup_audit_logs WHERE hash IS NOT NULL);
