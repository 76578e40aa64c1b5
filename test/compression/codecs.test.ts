import t from 'tap'
import { codecForKey, codecs } from '../../src/compression/registry.js'
import { codecSuite } from '../conformance/codec.js'

for (const codec of Object.values(codecs)) codecSuite(t, codec)

t.test('the name of a part tells its codec', async (t) => {
  t.equal(codecForKey('a/database.dump.zst.age'), codecs.zstd)
  t.equal(codecForKey('a/database.dump.gz'), codecs.gzip)
  t.equal(codecForKey('a/data-0001.dump.lz4.age'), codecs.lz4)
  t.equal(codecForKey('a/database.dump.age'), codecs.none)
  t.equal(codecForKey('a/manifest.json'), codecs.none)
  t.strictSame(Object.entries(codecs).map(([type, codec]) => [type, codec.type]), [['none', 'none'], ['gzip', 'gzip'], ['lz4', 'lz4'], ['zstd', 'zstd']])
})
