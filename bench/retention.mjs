// Ten years of backups under the default policy, day by day: how many are kept of each year. Usage, after `npm run build`:
//   node bench/retention.mjs [YEARS] [TIMEZONE]
// Nothing is stored: the decisions are those of dist/retention/choose.js, applied once a day as the daemon does.
const years = Number(process.argv[2] ?? 10)
const timezone = process.argv[3] ?? 'Europe/Berlin'
const { choose } = await import(new URL('../dist/retention/choose.js', import.meta.url).href)

const HOUR = 3_600_000
const begin = Date.UTC(2016, 10, 24, 1)
const end = new Date(Date.UTC(2016 + years, 10, 24, 3))
const schedules = [{ id: 1, name: 'shop', timezone, days: 30, verify: true }]
// The defaults of `backupd policy add`.
const policies = [{ id: 1, name: 'default', storage: 1, type: null, days: 30, daily: 7, weekly: 4, monthly: 12, yearly: 5, min: 3 }]
const thinned = { schedules: [{ ...schedules[0], days: 1 }], policies: [{ ...policies[0], days: 1 }] }

const backupAt = (id, startedAt) => ({
  id, schedule: 1, origin: '', storage: 1, type: 'full', copy: false, startedAt, state: 'good', verified: true, verify: true, pinned: false, readers: [], foreign: false, offline: false,
})

const simulate = (every, rules) => {
  let backups = []
  let [made, most] = [0, 0]
  const yearly = []
  for (let day = begin; day < end.getTime(); day += 24 * HOUR) {
    for (let at = day; at < Math.min(day + 24 * HOUR, end.getTime()); at += every) {
      made += 1
      backups.push(backupAt(made, new Date(at)))
    }
    const now = new Date(Math.min(day + 24 * HOUR - 1, end.getTime()))
    backups = choose({ backups, now, timezone, ...rules }).filter(({ keep }) => keep).map(({ backup }) => backup)
    most = Math.max(most, backups.length)
    if (now.getUTCMonth() === 11 && now.getUTCDate() === 31) yearly.push({ year: now.getUTCFullYear(), kept: backups.map(({ startedAt }) => startedAt.getUTCFullYear()) })
  }
  const kept = choose({ backups, now: end, timezone, ...rules }).filter(({ keep }) => keep)
  return { made, most, kept, yearly }
}

const day = (date) => date.toISOString().slice(0, 10)
const perYear = (list) => [...new Set(list)].sort().map((year) => `${year}: ${list.filter((one) => one === year).length}`).join(', ')
const show = (title, { made, most, kept, yearly }) => {
  console.log(`${title}: ${made} made, ${kept.length} kept at the end, never more than ${most}`)
  console.log('kept on 31 December, by the year in which they were made:')
  for (const one of yearly) console.log(`${one.year}  ${String(one.kept.length).padStart(4)}  ${perYear(one.kept)}`)
  console.log(`kept on ${day(end)}, and their dates:`)
  for (let year = 2016; year <= end.getUTCFullYear(); year += 1) {
    const own = kept.filter(({ backup }) => backup.startedAt.getUTCFullYear() === year)
    const days = [...new Set(own.map(({ backup }) => day(backup.startedAt)))]
    const dates = days.length <= 6 ? days.join(', ') : `${days.slice(0, 3).join(', ')} ... ${days.slice(-2).join(', ')}`
    console.log(`${year}  ${String(own.length).padStart(4)}  ${dates}`.trimEnd())
  }
  const rules = {}
  for (const { reasons } of kept) for (const rule of new Set(reasons.map((reason) => reason.rule))) rules[rule] = (rules[rule] ?? 0) + 1
  console.log(`kept by: ${Object.entries(rules).map(([rule, count]) => `${rule} ${count}`).join(', ')}\n`)
}

console.log(`${years} years from ${day(new Date(begin))}, ${timezone}; seen on ${end.toISOString().slice(0, 16)}Z\n`)
const started = performance.now()
show('daily, default policy', simulate(24 * HOUR, { schedules, policies }))
show('hourly, default policy', simulate(HOUR, { schedules, policies }))
show('hourly, every backup for 1 day only', simulate(HOUR, thinned))
console.error(`${((performance.now() - started) / 1000).toFixed(1)} s`)
