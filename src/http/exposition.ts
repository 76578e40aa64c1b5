/** One time series' labels and value; a value of null or undefined is left out. */
export interface Sample {
  labels?: Readonly<Record<string, string | number>>
  value: number | null | undefined
}

/** A metric with all its series. */
export interface Metric {
  name: string
  type: 'gauge' | 'counter'
  help: string
  samples: readonly Sample[]
}

const escaped = (text: string): string => text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/"/g, '\\"')

const series = (name: string, { labels = {}, value }: Sample): string => {
  const list = Object.entries(labels).map(([label, text]) => `${label}="${escaped(String(text))}"`)
  return `${name}${list.length === 0 ? '' : `{${list.join(',')}}`} ${String(value)}\n`
}

/** Metrics in Prometheus' text format, version 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). */
export const exposition = (metrics: readonly Metric[]): string =>
  metrics.map(({ name, type, help, samples }) => {
    const present = samples.filter(({ value }) => value !== null && value !== undefined)
    return present.length === 0 ? '' : `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${present.map((sample) => series(name, sample)).join('')}`
  }).join('')
