// The values that text columns may hold: one array each, from which the type and every check come.

export const backendTypes = ['local', 'aws_s3', 'gcs', 'azure_blob', 'ftp', 'sftp'] as const
export type BackendType = (typeof backendTypes)[number]

export const backupTypes = ['full', 'incremental', 'differential', 'configuration', 'database_only', 'files_only'] as const
export type BackupType = (typeof backupTypes)[number]

/** Those of `backupTypes` that backupd makes; a schedule with another one is refused. */
export const supportedBackupTypes = ['full', 'database_only', 'configuration'] as const satisfies readonly BackupType[]
export type SupportedBackupType = (typeof supportedBackupTypes)[number]

export const compressionTypes = ['none', 'gzip', 'lz4', 'zstd'] as const
export type CompressionType = (typeof compressionTypes)[number]

export const executionStatuses = [
  'scheduled', 'pending', 'running', 'completed', 'failed', 'cancelled', 'verifying', 'verified', 'corrupted',
] as const
export type ExecutionStatus = (typeof executionStatuses)[number]

/** An execution in one of these occupies its schedule. */
export const liveExecutionStatuses = ['pending', 'running', 'verifying'] as const satisfies readonly ExecutionStatus[]

/** An execution in one of these has a manifest in its storage and was not found damaged. */
export const goodExecutionStatuses = ['completed', 'verified'] as const satisfies readonly ExecutionStatus[]

export const verificationStatuses = ['pending', 'verified', 'corrupted', 'failed', 'skipped'] as const
export type VerificationStatus = (typeof verificationStatuses)[number]

export const recoveryStatuses = [
  'pending', 'preparing', 'downloading', 'extracting', 'restoring', 'validating', 'completed', 'failed', 'cancelled', 'rollback',
] as const
export type RecoveryStatus = (typeof recoveryStatuses)[number]

/** A recovery in one of these has ended. */
export const endedRecoveryStatuses = ['completed', 'failed', 'cancelled', 'rollback'] as const satisfies readonly RecoveryStatus[]

export const recoveryTypes = [
  'full_restore', 'database_only', 'files_only', 'configuration_only', 'point_in_time', 'selective_restore', 'disaster_recovery',
] as const
export type RecoveryType = (typeof recoveryTypes)[number]

export const triggers = ['schedule', 'manual', 'api', 'webhook', 'disaster_recovery', 'storage_limit'] as const
export type Trigger = (typeof triggers)[number]

export const cleanupStatuses = ['completed', 'failed', 'partial'] as const
export type CleanupStatus = (typeof cleanupStatuses)[number]

export const checkTypes = ['storage', 'schedule', 'integrity', 'system'] as const
export type CheckType = (typeof checkTypes)[number]

export const healthStatuses = ['healthy', 'warning', 'critical', 'error'] as const
export type HealthStatus = (typeof healthStatuses)[number]

export const auditCategories = ['backup', 'recovery', 'configuration', 'access'] as const
export type AuditCategory = (typeof auditCategories)[number]

export const auditActions = ['create', 'update', 'delete', 'execute', 'view'] as const
export type AuditAction = (typeof auditActions)[number]

export const auditStatuses = ['success', 'failure', 'warning'] as const
export type AuditStatus = (typeof auditStatuses)[number]

export const riskLevels = ['low', 'medium', 'high', 'critical'] as const
export type RiskLevel = (typeof riskLevels)[number]

export const searchKeyTypes = ['project_owner', 'public', 'tenant', 'admin'] as const
export type SearchKeyType = (typeof searchKeyTypes)[number]

export const securitySeverities = ['info', 'warning', 'critical'] as const
export type SecuritySeverity = (typeof securitySeverities)[number]

export const workerKinds = ['daemon', 'cli'] as const
export type WorkerKind = (typeof workerKinds)[number]

/** `start` and `success` are routine: they go to pings and to whoever asks for them by name. */
export const alertEvents = ['start', 'success', 'failure', 'corruption', 'overdue', 'unhealthy', 'recovery', 'first_success'] as const
export type AlertEvent = (typeof alertEvents)[number]

/** In rising order. */
export const alertSeverities = ['info', 'warning', 'critical'] as const
export type AlertSeverity = (typeof alertSeverities)[number]

export const notificationStatuses = ['pending', 'sending', 'sent', 'failed', 'skipped'] as const
export type NotificationStatus = (typeof notificationStatuses)[number]

/** `healthchecks` is a ping: it wants every run told, not only trouble. */
export const notifierTypes = ['webhook', 'slack', 'discord', 'teams', 'telegram', 'email', 'ntfy', 'healthchecks'] as const
export type NotifierType = (typeof notifierTypes)[number]
