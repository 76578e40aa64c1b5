import { sweepAbandoned, type Abandoned } from './abandoned.js'
import { allPages } from './asking.js'
import type { GcsClient } from './gcs-client.js'
import type { StorageAdapter, SweepReport } from './storage.js'

const unescapeXml = (value: string): string =>
  value.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&apos;', "'").replaceAll('&#39;', "'").replaceAll('&amp;', '&')

const elements = (xml: string, name: string): string[] => [...xml.matchAll(new RegExp(`<${name}>([\\s\\S]*?)</${name}>`, 'g'))].map(([, inner]) => inner ?? '')

const element = (xml: string, name: string): string | undefined => {
  const found = elements(xml, name)[0]
  return found === undefined ? undefined : unescapeXml(found)
}

interface AbandonedUpload extends Abandoned {
  name: string
  uploadId: string
}

/** Aborts multipart uploads that nobody ends any more. `nameOf` makes a key a name for messages. */
export const sweepGcs = ({ client, prefix, nameOf }: { client: GcsClient; prefix: string; nameOf(key: string): string }): StorageAdapter['sweep'] => async ({ olderThan, signal }) => {
  const report: SweepReport = { removed: [], remaining: [] }
  const path = `/${encodeURIComponent(client.bucket)}`
  const uploads = allPages(async (markers: Record<string, string | undefined> | undefined) => {
    const { text: page } = await client.ask(`list of unfinished uploads in ${nameOf('')}`, { method: 'GET', url: client.url(path, { uploads: '', prefix, ...markers }), signal })
    const items = elements(page, 'Upload').flatMap((entry): AbandonedUpload[] => {
      const [name, uploadId, initiated] = [element(entry, 'Key'), element(entry, 'UploadId'), element(entry, 'Initiated')]
      if (name === undefined || uploadId === undefined || initiated === undefined || !name.startsWith(prefix)) return []
      return [{ key: name.slice(prefix.length), touchedAt: new Date(initiated), name, uploadId }]
    })
    const more = element(page, 'IsTruncated') === 'true'
    return { items, next: more ? { 'key-marker': element(page, 'NextKeyMarker'), 'upload-id-marker': element(page, 'NextUploadIdMarker') } : undefined }
  })
  await sweepAbandoned(uploads, {
    olderThan, signal, report,
    remove: ({ key, name, uploadId }) => {
      const url = client.url(`${path}/${name.split('/').map(encodeURIComponent).join('/')}`, { uploadId })
      return client.ask(`abort of the upload of ${nameOf(key)}`, { method: 'DELETE', url, signal }, (status) => status < 300 || status === 404)
    },
  })
  return report
}
