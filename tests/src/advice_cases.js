// Cases for server/web/advice.js; gives what does not hold.
function check({ advise, view, retryDelay, snapshotName, duration }) {
  const wrong = []
  const expect = (what, is, wanted) => { if (is !== wanted) wrong.push(`${what}: ${is}, not ${wanted}`) }
  const fresh = { lastPacket: 0, lastPicture: 0, connected: true, hadPicture: true, ended: null, probed: null }
  const advice = (now, more) => advise(now, { ...fresh, ...more })
  const running = { kind: "serving", state: "running" }

  expect("pictures come", advice(500).act, "live")
  expect("the first picture is not due yet", advice(500, { hadPicture: false }).act, "starting")
  expect("silence asks the server", advice(1000).probe, true)
  expect("what was said before the silence is of no use", advice(1100, { probed: { at: 0, kind: "unknown" } }).act, "wait")
  expect("a forgotten session is left", advice(1100, { probed: { at: 1050, kind: "unknown" } }).act, "leave")
  expect("a server that is gone is left", advice(1100, { probed: { at: 1050, kind: "refused" } }).act, "leave")
  expect("a link that is down is waited for", advice(9000, { probed: { at: 8500, kind: "silent" } }).act, "wait")
  expect("and asked again", advice(9600, { probed: { at: 8500, kind: "silent" } }).probe, true)
  expect("but not at once", advice(9000, { probed: { at: 8500, kind: "silent" } }).probe, false)
  expect("a path that is new may take its time", advice(5000, { connected: false, probed: { at: 4500, ...running } }).act, "wait")
  expect("not for ever", advice(8100, { connected: false, probed: { at: 8000, ...running } }).act, "leave")
  expect("what is sent and does not arrive needs a new path", advice(3100, { probed: { at: 3000, ...running } }).act, "leave")
  const restarting = advice(60000, { probed: { at: 59500, kind: "serving", state: "restarting", reason: "no camera" } })
  expect("a source that restarts is waited for", restarting.act, "wait")
  expect("with its reason", restarting.reason, "The source is being restarted: no camera")
  expect("a keyframe is waited for", advice(5000, { lastPacket: 4900 }).act, "wait")
  expect("for so long", advice(31000, { lastPacket: 30900 }).act, "leave")
  expect("an ended session is left", advice(10, { ended: "over" }).reason, "over")

  expect("the first retry is at once", retryDelay(0, false), 0)
  expect("retries stay frequent", retryDelay(99, false), 1000)
  expect("a refusal is respected", retryDelay(0, true), 5000)

  const awake = { lastPicture: 0, awakeSince: 0 }
  expect("a picture of now", view(900, awake).state, "live")
  expect("a picture of then", view(1100, awake).state, "old")
  expect("its age", view(3999, awake).title, "Picture is 3 s old")
  expect("it is dimmed", view(1100, awake).dim, true)
  const shown = view(60500, { lastPicture: 0, awakeSince: 60000 })
  expect("a tab that was hidden is not called old at once", shown.state, "waiting")
  expect("but not shown as live either", shown.dim, true)
  expect("and then it is", view(61100, { lastPicture: 0, awakeSince: 60000 }).title, "Picture is 61 s old")
  expect("nothing yet", view(500, { lastPicture: null, awakeSince: 0 }).title, "Connecting")
  expect("still nothing", view(1500, { lastPicture: null, awakeSince: 0 }).title, "No picture yet")
  expect("minutes", duration(600000), "10 min")

  const time = new Date(2026, 0, 2, 3, 4, 5)
  expect("a snapshot's name", snapshotName("rov/1 x", time, 0), "rov_1_x_2026-01-02_03-04-05.png")
  expect("one of an old picture", snapshotName("", time, 2000), "rov_2026-01-02_03-04-05_not-live.png")
  return wrong
}
