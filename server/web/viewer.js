// The viewer page: what is on the screen, state, buttons. What is decided is in advice.js.

import { STALE_MS, doubtful, duration, fileName, isMoving, tabTitle, view } from "./advice.js"
import { figures } from "./figures.js"
import { logIn, onLost, takeToken, whoIs } from "./login.js"
import { MAX_TILES, lineup, told, tiles } from "./lineup.js"
import { Place, notices } from "./place.js"
import { keepFile, saveClip } from "./clip.js"
import { placeOf, withExif } from "./exif.js"
import { Note, refused } from "./event.js"
import { serverStats } from "./session.js"
import { List, state as recordingState } from "./recordings.js"
import { Form } from "./settings.js"
import { Watched, clock, copyPicture } from "./watched.js"
import { follow, measured, write } from "./written.js"

const TICK_MS = 200
const STATS_MS = 1000
/** The same while the panel is closed, for the server's part of the delay and its streams. */
const DELAY_MS = 10000
const IDLE_MS = 4000
/** A bound of the age's error that is larger is told with it. */
const TOLD_BOUND_MS = 50
const TOAST_MS = 5000
/** What a clip has without `?seconds=`, where so much is kept. */
const CLIP_S = 30
/** Of a picture that is older the place is not known: telemetry is that of now. */
const PLACE_MS = 1000
/** A clock that says less was not set, in ms since 1970. */
const FIRST_TIME = Date.UTC(2025, 0)
/** It is said so often that a clip has not come yet. */
const CLIP_TOLD_MS = 10000
/** For so long a file can be taken that the browser may have refused. */
const OFFERED_MS = 120000
/** Links to files hide the picture, and the files take memory. */
const MOST_OFFERED = 3
/** Between two tries to keep the screen on. */
const SCREEN_RETRY_MS = 10000
/** A chosen stream that has no picture by then is shown without: the pilot wants to know how it is. */
const CHANGE_MS = 2000
const NO_STREAMS = "The server has not said what streams it has"

const $ = id => document.getElementById(id)
const page = { awakeSince: 0, lastTick: 0, server: null, mayWatch: false, mayChange: false }

// --- What is watched ---

/** The large picture. */
let main = watched(new URLSearchParams(location.search).get("stream"), $("video"), $("last"))
/** The stream that takes its place at its first picture, and since when it is awaited; or null. */
let opening = null
/** The page is being left. */
let left = false
/** Why pictures are no live ones of their camera, by the names of the streams. */
let doubts = {}
/** The stream of those who name none, as the server said with these. */
let firstStream
/** The tiles of the grid: `{ number, title, stream, feed, button, state, message }`; null while it is not shown. */
let grid = null

function watched(name, video, last) {
  const feed = new Watched(name, video, last, {
    presented: now => {
      if (feed === opening?.feed) takeOver()
      const { classList, dataset } = document.body
      if (feed === main && (dataset.state !== "live" || classList.contains("dim"))) render(now)
    },
    stats: learn,
    doubts: (said, first) => {
      doubts = said
      firstStream = first
    },
    proven: key => {
      const news = place.proven(key)
      announce(news)
      if (news) leaveBehind()
    },
    opened: () => refreshServer(),
    isOf: id => {
      // Earlier versions do not say it.
      const isKnown = page.server && (!id || id === page.server.id)
      if (!isKnown && clock() - refreshed > STATS_MS) refreshServer()
      return Boolean(isKnown)
    },
    blocked: () => { $("play").hidden = false },
  })
  for (const element of [video, last])
    element.addEventListener("dblclick", () => { if (feed === main) toggleFullscreen() })
  video.addEventListener("playing", () => { $("play").hidden = true })
  return feed
}

/** All that have a session, or shall have one. */
const feeds = () => [...grid ? grid.map(({ feed }) => feed) : [main], ...opening ? [opening.feed] : []]

function showElements(name) {
  const [video, last] = [$("video"), $("last")].map(element => element.cloneNode())
  for (const element of [video, last]) element.removeAttribute("id")
  last.hidden = true
  return watched(name, video, last)
}

/** `name` becomes large with its first picture; until then what is shown goes on. */
function choose(name, now = clock()) {
  // The name changes with the picture.
  $("streams").value = shownStream()
  // The second click of two.
  if (opening?.feed.name === name) return
  stopOpening()
  if (!grid && name === shownStream()) return
  const feed = showElements(name)
  // Below what is shown: a video that is not displayed at all is not decoded.
  $("video").before(feed.video, feed.last)
  opening = { feed, asked: now }
}

function stopOpening() {
  opening?.feed.close()
  opening?.feed.video.remove()
  opening?.feed.last.remove()
  opening = null
}

function takeOver() {
  const { feed } = opening
  opening = null
  closeGrid()
  main.close()
  main.video.remove()
  main.last.remove()
  main = feed
  main.video.id = "video"
  main.last.id = "last"
  // So that a reload, or the address given to another, shows the same.
  const address = new URL(location.href)
  address.searchParams.set("stream", main.name)
  history.replaceState(null, "", address)
  $("streams").value = main.name
  render(clock())
}

/** There is nothing to wait for where no picture is seen. */
function tendOpening(now) {
  if (!opening) return
  const isFresh = ({ lastPicture }) => lastPicture !== null && now - lastPicture <= STALE_MS
  const isSeen = feeds().some(feed => feed !== opening.feed && isFresh(feed))
  if (now - opening.asked > CHANGE_MS || !isSeen) takeOver()
}

function openGrid() {
  const all = lineup(page.server?.streams ?? [])
  if (all.length < 2) return toast(all.length ? `There is one stream alone: ${told(all)}` : NO_STREAMS)
  stopOpening()
  main.pause()
  const wanted = tiles(all), left = wanted.splice(MAX_TILES)
  grid = wanted.map(tile => {
    const button = element("button"), name = element("span", `${tile.number} ${tile.title}`), state = element("span")
    const message = element("span")
    const feed = showElements(tile.stream)
    button.type = "button"
    button.className = "tile"
    name.className = "name"
    state.className = "state"
    message.className = "message"
    button.append(feed.video, feed.last, name, state, message)
    button.addEventListener("click", () => chooseNumber(tile.number))
    return { ...tile, feed, button, state, message }
  })
  $("grid").replaceChildren(...grid.map(({ button }) => button))
  $("grid").hidden = false
  arrange()
  document.body.classList.add("grid")
  $("show-grid").setAttribute("aria-pressed", "true")
  const names = left.map(({ number, title }) => `${number} ${title}`).join(", ")
  if (left.length) toast(`${left.length} more do not fit: ${names}`)
  render(clock())
}

/** In as many columns as make the tiles large in a window of this shape. */
function arrange() {
  if (!grid) return
  const { clientWidth, clientHeight } = $("grid"), all = grid.length
  const width = columns => Math.min(clientWidth / columns, clientHeight / Math.ceil(all / columns) * 16 / 9)
  const counts = grid.map((_, at) => at + 1)
  $("grid").style.setProperty("--columns", counts.reduce((best, count) => width(count) > width(best) ? count : best))
}

/** The sessions of its tiles end. */
function closeGrid() {
  if (!grid) return
  for (const { feed } of grid) feed.close()
  grid = null
  $("grid").replaceChildren()
  $("grid").hidden = true
  document.body.classList.remove("grid")
  $("show-grid").setAttribute("aria-pressed", "false")
}

function toggleGrid() {
  if (grid) choose(shownStream())
  else openGrid()
}

function chooseNumber(number) {
  const all = lineup(page.server?.streams ?? [])
  const stream = all[number - 1]
  if (!stream) return toast(all.length ? `There is no stream ${number}. There are ${told(all)}` : NO_STREAMS)
  toast(`${number} ${stream.title}`)
  choose(stream.name)
}

// --- The screen ---

let screenLock = null, screenAsked = -Infinity
/** Keeps it on while pictures come; browsers grant that by HTTPS and to localhost alone, and never in a hidden tab. */
async function keepScreenOn(now, on) {
  if (!on) {
    screenLock?.release?.()
    screenLock = null
    screenAsked = -Infinity
  } else if (navigator.wakeLock && (!screenLock || screenLock.released) && now - screenAsked > SCREEN_RETRY_MS) {
    screenAsked = now
    const lock = await navigator.wakeLock.request("screen").catch(() => null)
    // The picture may have gone meanwhile.
    if (screenAsked === now) screenLock = lock
    else lock?.release()
  }
}

// --- What is seen ---

function render(now) {
  const seen = grid ? renderGrid(now) : view(now, what(main))
  const { body } = document
  const isLive = isMoving(seen.state)
  const reason = grid ? seen.reason : main.why
  // Without the seconds: what changes is said again.
  const spoken = seen.title && `${seen.state === "old" ? "NO VIDEO" : seen.title}. ${reason}`
  if (body.dataset.state !== seen.state && isLive) setText("spoken", seen.badge)
  else if (!isLive) setText("spoken", spoken)
  body.dataset.state = seen.state
  body.classList.toggle("dim", seen.dim)
  body.classList.toggle("marked", Boolean(seen.mark))
  setText("mark", seen.mark?.title ?? "")
  setText("mark-detail", seen.mark?.detail ?? "")
  if (!isLive) awake()
  setText("badge", seen.badge)
  setText("title", grid ? "" : seen.title)
  setText("reason", grid || ["live", "late", "blind"].includes(seen.state) || seen.badge === "Checking" ? "" : reason)
  $("snapshot").disabled = Boolean(grid) || main.lastPicture === null
  write($("written"), pictured()?.id, shownStream(), main.video, isLive && !grid)
  const title = grid ? `${page.server?.name || "ROV"} - ${seen.badge}` : tabTitle(now, page.server?.name, what(main))
  if (document.title !== title) document.title = title
  keepScreenOn(now, isLive && !document.hidden)
}

/** All that `view` wants to know of a feed. */
function what(feed) {
  const { lastPicture, lastDecoded, connected, lost, byHttp, late, blind } = feed
  const doubt = doubts[feed.name ?? page.server?.streams[0]?.name ?? firstStream]
  return { lastPicture, lastDecoded, connected, lost, byHttp, late, blind, doubt, awakeSince: page.awakeSince }
}

/** Each tile by itself; gives what is said of all. */
function renderGrid(now) {
  let live = 0, late = 0, moving = 0
  const trouble = []
  for (const { feed, number, title, button, state, message } of grid) {
    const seen = view(now, what(feed))
    const isLive = isMoving(seen.state)
    if (isLive) moving += 1
    if (seen.state === "late") late += 1
    if (isLive && !seen.mark) live += 1
    else trouble.push(`${title}: ${seen.mark?.title || seen.badge}`)
    button.dataset.state = seen.state
    button.classList.toggle("dim", seen.dim)
    button.classList.toggle("marked", Boolean(seen.mark))
    const said = isLive ? seen.mark?.title ?? "" : [seen.title, feed.why].filter(Boolean).join(". ")
    if (state.textContent !== seen.badge) state.textContent = seen.badge
    if (message.textContent !== said) message.textContent = said
    const label = `${number} ${title}, ${seen.badge}`
    if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label)
  }
  const none = late ? "OLD" : moving ? `0 of ${grid.length} live` : "NO VIDEO"
  const badge = live === grid.length ? "All live" : live ? `${live} of ${grid.length} live` : none
  const waiting = trouble.every(text => text.endsWith("Connecting"))
  const state = live === grid.length ? "live" : waiting ? "waiting" : "old"
  return { state, dim: false, badge, title: badge, reason: trouble.join(", "), mark: null }
}

function setText(id, text) {
  const element = $(id)
  if (element.textContent !== text) element.textContent = text
}

function renderFigures() {
  if (grid) return setText("delay", "")
  const { video, samples, session, shownMs } = main
  const stream = page.server?.streams.find(({ name }) => name === shownStream())
  const mean = shownMs.length ? shownMs.reduce((a, b) => a + b) / shownMs.length : undefined
  const live = ["live", "late", "blind"].includes(document.body.dataset.state) && samples.length > 1
  const size = [video.videoWidth, video.videoHeight]
  const { rows, total, stages } = live
    ? figures(samples[0], samples.at(-1), size, stream, mean, page.server?.viewers, session?.id)
    : { rows: [["State", document.body.dataset.state === "backup" ? "MJPEG by HTTP" : "not live"]], stages: [] }
  const age = isMoving(document.body.dataset.state) ? meanAge(main.ages) : null
  // What is known of the way is no age: it may be a part of it.
  const bound = age?.bound > TOLD_BOUND_MS ? ` ±${age.bound.toFixed(0)}` : ""
  setText("delay", age && document.body.dataset.state !== "blind" ? `${age.age.toFixed(0)} ms${bound}` : "")
  if (age) {
    rows.push(["Age", `${age.age.toFixed(0)} ms ±${age.bound.toFixed(1)}`])
    const [p50, p95, p99] = [0.5, 0.95, 0.99].map(share => main.allAges.quantile(share))
    rows.push(["Age p50, p95, p99", `${p50}, ${p95}, ${p99} ms`])
  } else if (main.ageUnknown) rows.push(["Age", main.ageUnknown])
  if ($("info").hidden) return
  $("figures").replaceChildren(...rows.flatMap(([label, value]) => [element("dt", label), element("dd", value)]))
  setText("origin", stream ? `${stream.source}, ${stream.encoder}` : "")
  setText("latency", total === undefined ? "–" : `${total.toFixed(0)} ms`)
  setText("stages", stages.map(([name, value]) => `${name} ${value.toFixed(1)}`).join(" + "))
}

/** Over the last seconds, with the bound of the newest; null where it is not known. */
function meanAge(ages) {
  if (!ages.length) return null
  return { age: ages.reduce((sum, { age }) => sum + age, 0) / ages.length, bound: ages.at(-1).bound }
}

function element(name, text = "") {
  const made = document.createElement(name)
  made.textContent = text
  return made
}

const shownStream = () => main.name ?? page.server?.streams[0]?.name

const place = new Place()

let announced = null
/** What happened to whose picture it is: said at once, and until the pilot has clicked it. */
function announce(news) {
  if (!news || news === announced) return
  announced = news
  toast(news)
  setText("news", news)
  $("news").hidden = false
}

/** What was so when the server was asked last. */
let noticed = []
/** Another server answers: nothing that was known is of it, and what it says is not of the pictures that stand. */
function leaveBehind() {
  for (const feed of feeds()) feed.leaveBehind(page.server)
  page.server = null
  doubts = {}
  follow(false)
  // Their changes would be those of the other one.
  closeSettings()
  closeRecordings()
}

/** What the server said that the large picture is of; null: it has said nothing. */
const pictured = () => main.behind ? main.behind.server : page.server

/** The server's statistics: its name and its streams. */
function learn(stats) {
  const { other, aside } = place.told(feeds().map(({ session }) => session?.key).find(Boolean), stats)
  announce(other ?? aside)
  // Not of the server whose video is shown.
  if (aside) return
  if (other) leaveBehind()
  else {
    const said = notices(stats.streams)
    announce(said.filter(notice => !noticed.includes(notice)).join("; "))
    noticed = said
  }
  page.server = stats
  doubts = Object.fromEntries(stats.streams.map(stream => [stream.name, stream]))
  // A connection of its own, of which a browser has few, and the server places: only while there is something to write,
  // or measured.
  follow(page.mayWatch && (stats.overlays || Boolean(stats.telemetry)) && !document.hidden)
  const names = stats.streams.map(({ name }) => name)
  for (const name of [shownStream(), opening?.feed.name ?? shownStream()]) if (!names.includes(name)) names.push(name)
  setText("name", stats.name)
  $("choice").hidden = $("show-grid").hidden = names.length < 2
  if ([...$("streams").options].map(({ value }) => value).join("\n") !== names.join("\n")) {
    $("streams").replaceChildren(...names.map(name => new Option(name, name)))
  }
  $("streams").value = shownStream()
}

let refreshing = false, refreshed = -Infinity
async function refreshServer() {
  if (refreshing) return
  refreshing = true
  refreshed = clock()
  // Without an answer the figures stay those that were; the pictures tell whether the server is there.
  await serverStats().then(learn, () => {})
  refreshing = false
}

// --- Time ---

/** Waits for nothing, so that the age of the picture is always told. */
function tick() {
  if (left || !page.mayWatch) return
  const now = clock()
  // Nothing is presented in a hidden tab, and timers that slept have seen neither pictures nor their absence.
  if (document.hidden || now - page.lastTick > STALE_MS) awakeAt(now)
  page.lastTick = now
  tendOpening(now)
  for (const feed of feeds()) if (place.isLeft(feed.session?.key)) feed.leave("Another server answers here")
  for (const feed of feeds()) feed.tick(now)
  const isOpen = !$("info").hidden, isConnected = feeds().some(({ connected }) => connected)
  if (now - refreshed > (isOpen ? STATS_MS : DELAY_MS) && (isOpen || isConnected)) refreshServer()
  render(now)
  renderFigures()
  renderRecording()
  renderClip()
}

function awakeAt(now) {
  page.awakeSince = now
  for (const feed of feeds()) feed.awakeAt(now)
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return
  awakeAt(clock())
  for (const feed of feeds()) if (feed.video.paused && feed.video.srcObject?.active) feed.play()
  render(clock())
})

addEventListener("pagehide", () => {
  left = true
  for (const feed of feeds()) feed.pause()
})
// Out of the back-forward cache.
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted) return
  left = false
  for (const feed of feeds()) feed.resume()
  awakeAt(clock())
})

// --- Login ---

/** Goes on where this page may watch, and else asks for a login. */
function enter(who) {
  page.mayWatch = who?.may_watch ?? true
  page.mayChange = Boolean(who?.may_change)
  if (!page.mayWatch) follow(false)
  if (!page.mayWatch) closeRecordings()
  $("show-settings").hidden = !who?.may_change
  if (!who?.may_change) closeSettings()
  $("login").hidden = page.mayWatch
  setText("login-error", who?.error ?? "")
  if (page.mayWatch) {
    for (const feed of feeds()) feed.resume()
    awakeAt(clock())
    return tick()
  }
  for (const feed of feeds()) feed.pause()
  setText("title", "")
  setText("badge", "Log in")
  $("user").focus()
}

/** A server that does not answer is waited for as without a login. */
const check = () => whoIs().catch(() => null).then(enter)

onLost(() => { if (page.mayWatch) check() })
addEventListener("hashchange", () => { if (takeToken()) check() })
$("login").addEventListener("submit", async event => {
  event.preventDefault()
  setText("login-error", "")
  const failed = { may_watch: false, error: "The server does not answer" }
  enter(await logIn($("user").value, $("password").value).catch(() => failed))
  if (page.mayWatch) $("password").value = ""
})

// --- Buttons and keys ---

function toggleInfo() {
  closeSettings()
  closeRecordings()
  const panel = $("info")
  panel.hidden = !panel.hidden
  $("show-info").setAttribute("aria-pressed", String(!panel.hidden))
  refreshServer()
  renderFigures()
}

/** The form of the settings, while it is open. */
let form = null

function closeSettings() {
  if ($("settings").contains(document.activeElement)) $("show-settings").focus()
  form?.close()
  form = null
  $("settings").hidden = true
  $("show-settings").setAttribute("aria-pressed", "false")
}

/** The list of the recordings, while it is open. */
let list = null

function closeRecordings() {
  list?.close()
  list = null
  $("recordings").hidden = true
  $("show-recordings").setAttribute("aria-pressed", "false")
}

function toggleRecordings() {
  if (list) return closeRecordings()
  if ($("show-recordings").hidden) return
  if (!$("info").hidden) toggleInfo()
  closeSettings()
  $("recordings").hidden = false
  $("show-recordings").setAttribute("aria-pressed", "true")
  list = new List($("recordings"), page.mayChange)
}

/** A dot and how it is recorded, of the stream that is shown. */
function renderRecording() {
  const all = page.server?.streams ?? []
  const recording = all.find(({ name }) => name === shownStream())?.recording
  const text = recordingState(recording)
  $("show-recordings").hidden = !page.mayWatch || !all.some(({ recording }) => recording)
  $("recording").hidden = !text
  $("recording").dataset.state = recording?.state ?? ""
  setText("recording", text)
}

function toggleSettings() {
  if (form) return closeSettings()
  closeRecordings()
  const stream = page.server?.streams.find(({ name }) => name === shownStream())
  if ($("show-settings").hidden || !stream) return
  if (!$("info").hidden) toggleInfo()
  $("settings").hidden = false
  $("show-settings").setAttribute("aria-pressed", "true")
  form = new Form($("settings"), stream.camera, stream.name)
  $("settings").focus()
}
$("settings").addEventListener("keydown", ({ key }) => { if (key === "Escape") closeSettings() })

// Not the video's own fullscreen of phones: it would hide that a picture is old. There the page fills the screen
// anyway.
const root = document.documentElement
const canFill = Boolean(root.requestFullscreen ?? root.webkitRequestFullscreen)
const filling = () => document.fullscreenElement ?? document.webkitFullscreenElement

async function toggleFullscreen() {
  if (!canFill) return
  try {
    if (filling()) await (document.exitFullscreen ?? document.webkitExitFullscreen).call(document)
    else await (root.requestFullscreen ?? root.webkitRequestFullscreen).call(root)
  } catch (error) {
    toast(`No fullscreen: ${error.message}`)
  }
}
for (const event of ["fullscreenchange", "webkitfullscreenchange"]) {
  document.addEventListener(event, () => $("fullscreen").setAttribute("aria-pressed", String(Boolean(filling()))))
}

/** Why the picture that is on the screen cannot be kept; else "". */
const unkept = () => {
  if (grid) return "Make one of the tiles large first"
  return main.lastPicture === null ? "There is no picture yet" : ""
}

/** The picture that is on the screen, in the size in which it came, and what is known of it. `png`: a promise. */
function picture() {
  const now = clock(), age = now - main.lastPicture, server = pictured(), isBehind = Boolean(main.behind)
  const stream = main.name ?? server?.streams[0]?.name ?? ""
  const { camera = "", capture_time, ring } = server?.streams.find(({ name }) => name === stream) ?? {}
  const telemetry = isBehind ? {} : measured(server?.id)
  const remarks = []
  // A vehicle without a clock that is set may say any time.
  const isKnown = main.lastCaptured >= FIRST_TIME
  if (!isKnown) remarks.push("The time is that at which the browser showed it.")
  else if (capture_time === "arrival") remarks.push("The time is that of the picture's arrival at the server.")
  if (age > STALE_MS) remarks.push(`The picture was no live one any more: it was ${duration(age)} old.`)
  const { mark } = view(now, what(main))
  if (mark?.title) remarks.push(`It was marked: ${[mark.title, mark.detail].filter(Boolean).join(", ")}.`)
  if (isBehind) remarks.push("Another server is connected by now: its telemetry is left out.")
  const about = {
    time: new Date(isKnown ? main.lastCaptured : Date.now() - age),
    vehicle: server?.name ?? "", camera, stream, remarks,
    place: age + (main.ages.at(-1)?.age ?? 0) > PLACE_MS ? {} : placeOf(telemetry),
  }
  const canvas = document.createElement("canvas")
  copyPicture(canvas, main.last.hidden ? main.video : main.last)
  const png = new Promise((resolve, reject) => {
    const none = new Error("the browser could not make a PNG of it")
    canvas.toBlob(blob => blob ? resolve(blob.arrayBuffer()) : reject(none), "image/png")
  }).then(bytes => new Blob(withExif(new Uint8Array(bytes), about), { type: "image/png" }))
  return { about, age, png, telemetry, ring, server, isBehind }
}

/** Keeps it as a file. */
async function snapshot() {
  if (unkept()) return toast(unkept())
  try {
    const { about, age, png } = picture()
    const name = `${fileName(about.time, about, age > STALE_MS && "not-live")}.png`
    keepFile(await png, name)
    toast(age > STALE_MS ? `Saved ${name}: this picture is ${duration(age)} old` : `Saved ${name}`)
  } catch (error) {
    toast(`Nothing was saved: ${error.message}`)
  }
}

/** What this server keeps of a stream. */
const ringOf = (server, stream) => server?.streams.find(({ name }) => name === stream)?.ring

/** What the clip button can save, of the stream that is shown. */
function renderClip() {
  const ring = ringOf(page.server, shownStream())
  $("clip").hidden = !page.mayWatch || !ring || Boolean(grid)
  const save = ring ? `Save the last ${Math.min(CLIP_S, ring.limit_seconds)} s (C)` : ""
  const title = clipStop ? "Break off the clip (C)" : save
  if ($("clip").title !== title) $("clip").title = $("clip").ariaLabel = title
}

/** Breaks off the clip that is being saved; null: none is. One at a time: the link is the pilot's. */
let clipStop = null
async function clip() {
  if (clipStop) return clipStop.abort(new Error("it was broken off"))
  if (grid) return toast("Make one of the tiles large first")
  if (main.behind) return toast("No clip: another server answers by now")
  clipStop = new AbortController()
  const begun = clock()
  const wait = () => toast(`Still waiting for the clip, ${duration(clock() - begun)}. C breaks it off`)
  const waiting = setInterval(wait, CLIP_TOLD_MS)
  toast("Saving the last seconds…")
  const doubt = doubtful(what(main).doubt ?? {})
  const kept = ringOf(page.server, shownStream())?.limit_seconds, before = Math.min(CLIP_S, kept ?? CLIP_S) * 1000
  const around = { stream: shownStream(), moment: begun, ...Watched.latest(), before, after: 0 }
  const options = { server: page.server?.id, kept, signal: clipStop.signal }
  toast(await saveClip(around, options, doubt ? `${doubt.title}. ${doubt.detail}` : "", offer))
  clearInterval(waiting)
  clipStop = null
}

/** The event whose text is being typed; null: none is. */
let note = null
/** Events that wait for their clips. */
let saving = 0
// The browser asks whether the page is to be left.
addEventListener("beforeunload", event => {
  if (!note && !saving && !clipStop) return
  event.preventDefault()
  // For browsers of before 2024.
  event.returnValue = true
})

function noteEvent() {
  if (note) return $("event-text").focus()
  note = newNote()
  $("event").hidden = false
  $("event-text").value = ""
  $("event-text").focus()
}

function newNote() {
  const none = reason => {
    toast(reason)
    return refused(reason)
  }
  if (unkept()) return none(unkept())
  let taken
  try {
    taken = picture()
  } catch (error) {
    return none(`The browser gives no picture: ${error.message}`)
  }
  const { about, age, png, telemetry, ring, server, isBehind } = taken
  const latest = Watched.latest(), captured = latest ? main.lastCaptured ?? latest.captured - age : undefined
  return new Note({
    ...about, picture: png, telemetry, moment: clock(), captured, run: latest?.run, server: server?.id,
    kept: ring?.limit_seconds, noClip: isBehind && "another server answers by now",
  })
}

function closeNote() {
  $("event").hidden = true
  const closed = note
  note = null
  return closed
}

$("event").addEventListener("submit", async submitted => {
  submitted.preventDefault()
  const closed = closeNote()
  if (!closed) return
  saving += 1
  toast("Saving the event…")
  const failed = error => `The event was not saved: ${error.message}`
  toast(await closed.save($("event-text").value, toast, offer).catch(failed))
  saving -= 1
})
function cancelNote() {
  closeNote()?.cancel()
}
/** Not of an input method, whose Escape ends what is composed; Safari tells it by the code alone. */
const isEscape = ({ key, isComposing, keyCode }) => key === "Escape" && !isComposing && keyCode !== 229
$("event").addEventListener("keydown", event => { if (isEscape(event)) cancelNote() })
$("event-cancel").addEventListener("click", cancelNote)

/**
 * Downloads a file, and shows a link to it for a while: so long after the key a browser may ask first, or refuse, where
 * the link is a key of its own.
 */
function offer(blob, name) {
  keepFile(blob, name)
  const link = document.createElement("a")
  Object.assign(link, { href: URL.createObjectURL(blob), download: name, textContent: `Not saved? ${name}` })
  const drop = () => withdraw(link)
  link.addEventListener("click", drop)
  setTimeout(drop, OFFERED_MS)
  $("offered").append(link)
  if ($("offered").children.length > MOST_OFFERED) withdraw($("offered").firstElementChild)
}

function withdraw(link) {
  link.remove()
  setTimeout(() => URL.revokeObjectURL(link.href), 60000)
}

let toastTimer = 0
function toast(text) {
  setText("toast", text)
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => setText("toast", ""), TOAST_MS)
}

let idleTimer = 0
function awake() {
  document.body.classList.remove("idle")
  clearTimeout(idleTimer)
  idleTimer = setTimeout(() => document.body.classList.toggle("idle", document.body.dataset.state === "live"), IDLE_MS)
}

const showKeys = () => toast("Keys: 1 to 9 Stream, G All cameras, F or double click Fullscreen, I Information, " +
  "R Recordings, S Snapshot, C Clip of the last seconds, E Note an event, O Settings")
const actions = {
  c: clip, e: noteEvent, o: toggleSettings, f: toggleFullscreen, g: toggleGrid, r: toggleRecordings, s: snapshot,
  i: toggleInfo, "?": showKeys, f1: showKeys,
}
for (let number = 1; number <= 9; number += 1) actions[number] = () => chooseNumber(number)
addEventListener("keydown", event => {
  awake()
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (note) {
    // What is typed is of the text, wherever a click has put the focus.
    if (event.target.closest?.("#event")) return
    if (isEscape(event)) return cancelNote()
    return $("event-text").focus()
  }
  if (event.repeat || event.target.closest?.("select, input")) return
  const action = actions[event.key.toLowerCase()]
  if (action) event.preventDefault()
  action?.()
})
for (const event of ["pointermove", "pointerdown", "focusin"]) addEventListener(event, awake)
addEventListener("resize", arrange)
$("news").addEventListener("click", () => { $("news").hidden = true })
$("show-info").addEventListener("click", toggleInfo)
$("show-settings").addEventListener("click", toggleSettings)
$("show-recordings").addEventListener("click", toggleRecordings)
$("snapshot").addEventListener("click", snapshot)
$("clip").addEventListener("click", clip)
$("note").addEventListener("click", noteEvent)
$("fullscreen").addEventListener("click", toggleFullscreen)
$("fullscreen").hidden = !canFill
$("play").addEventListener("click", () => { for (const feed of feeds()) feed.play() })
$("show-grid").addEventListener("click", toggleGrid)
$("streams").addEventListener("change", ({ target }) => choose(target.value))

page.awakeSince = page.lastTick = clock()
awake()
takeToken()
check()
setInterval(tick, TICK_MS)
