// The viewer page: picture, state, buttons. What is decided is in advice.js.

import { STALE_MS, advise, duration, retryDelay, snapshotName, tabTitle, view } from "./advice.js"
import { figures, read } from "./figures.js"
import { watch } from "./mjpeg.js"
import { Refused, Session, probe, serverStats } from "./session.js"

const TICK_MS = 200
/** Over which the figures are means. */
const WINDOW_MS = 2000
const STATS_MS = 1000
/** The same while the panel is closed, for the server's part of the delay. */
const DELAY_MS = 10000
const IDLE_MS = 4000
const TOAST_MS = 5000
/** Between two tries to get pictures by HTTP, and to keep the screen on. */
const PREVIEW_RETRY_MS = 1000
const SCREEN_RETRY_MS = 10000

const $ = id => document.getElementById(id)
const video = $("video")
const page = {
  /** When a picture was last presented. */
  lastPicture: null,
  /** When one was last decoded: also while none is presented, in a hidden tab. */
  lastDecoded: null,
  /** That picture came by HTTP. */
  byHttp: false,
  /** Why no video comes by WebRTC although the server answers, while that is so. */
  blocked: "",
  connected: false,
  /** A session was lost or refused since there was a picture. */
  lost: false,
  awakeSince: 0,
  lastTick: 0,
  reason: "",
  server: null,
  /** The name of the stream that was chosen, here or in the page's address; null: the server's first. */
  stream: new URLSearchParams(location.search).get("stream"),
}

// Time that goes on while the machine sleeps, which performance.now() may not; a clock that is set back does not matter.
let slept = 0, lastWall = Date.now(), lastMono = performance.now()
function clock() {
  const wall = Date.now(), mono = performance.now()
  const missed = (wall - lastWall) - (mono - lastMono)
  if (missed > 1000) slept += missed
  lastWall = wall
  lastMono = mono
  return mono + slept
}

// --- Session ---

/** The session that is, or null; `state` is what `advise` wants to know of it. */
let session = null, state = null
/** The session whose track the video shows. */
let attached = null
let failures = 0
let nextStart = 0
let samples = []
let left = false

function start(now) {
  failures += 1
  nextStart = Infinity
  samples = []
  const mine = session = new Session()
  state = {
    lastPacket: now, lastPicture: now, connected: false, foundPath: false, hadPicture: false, paths: [], ended: null,
    probed: null,
  }
  mine.open(ofStream("whep"), track => show(mine, track)).then(() => {
    if (mine === session) refreshServer()
  }).catch(error => {
    if (mine !== session) return
    const reason = error instanceof Refused ? error.message : "The server does not answer"
    leave(reason, error instanceof Refused)
    // One that refuses a stream has others to choose from.
    if (error instanceof Refused) refreshServer()
  })
}

/** The path for the stream that was chosen. One that is gone is refused: another would be taken for it. */
function ofStream(path) {
  if (page.stream === null) return path
  return `${path}${path.includes("?") ? "&" : "?"}stream=${encodeURIComponent(page.stream)}`
}

function leave(reason, refused = false) {
  freeze()
  session?.close()
  session = null
  page.connected = false
  page.lost = true
  if (reason !== page.blocked) page.blocked = ""
  page.reason = refused ? reason : `${reason}; reconnecting`
  nextStart = clock() + retryDelay(failures, refused)
}

function show(mine, track) {
  const attach = () => {
    if (mine !== session) return
    attached = mine
    lastFrame = null
    video.srcObject = new MediaStream([track])
    play()
  }
  // Nothing is changed for a track that may never show anything.
  if (track.muted && page.lastPicture !== null) track.addEventListener("unmute", attach, { once: true })
  else attach()
}

/** Keeps the last picture on the screen, dimmed, until there is a new one: the video turns black with the end of its track. */
function freeze() {
  const last = $("last")
  if (page.lastPicture === null || !last.hidden || !video.videoWidth) return
  copyPicture(last, video)
  last.hidden = false
}

function copyPicture(canvas, picture) {
  canvas.width = picture.videoWidth ?? picture.width
  canvas.height = picture.videoHeight ?? picture.height
  canvas.getContext("2d").drawImage(picture, 0, 0)
}

function play() {
  video.play().catch(error => {
    // Low power mode and strict settings want a touch. Other failures are those of a track that was replaced.
    if (error.name === "NotAllowedError") $("play").hidden = false
  })
}

/** How packets and pictures come, by the browser's own counters: these work in a hidden tab too. */
async function sample(now) {
  const mine = session
  const report = read(await mine.stats())
  if (mine !== session) return
  const before = samples.at(-1)
  if (report.packets > (before?.packets ?? 0)) state.lastPacket = now
  if (report.decoded > (before?.decoded ?? 0)) {
    state.lastPicture = now
    state.hadPicture = true
    page.lastDecoded = now
    failures = 0
    if (!presentsItself) presented(now)
  }
  state.connected = page.connected = mine.connected
  state.foundPath = mine.foundPath
  state.paths = mine.paths
  state.ended = mine.ended
  samples.push({ ...report, taken: now })
  while (samples.length > 2 && samples[1].taken < now - WINDOW_MS) samples.shift()
}

async function ask() {
  const mine = session
  const answer = await probe(mine.id, page.stream)
  if (answer.stats) learn(answer.stats)
  if (mine === session) state.probed = { ...answer, at: clock() }
}

// --- Pictures ---

const presentsItself = "requestVideoFrameCallback" in HTMLVideoElement.prototype
let shownMs = []
let lastFrame = null

function presented(now) {
  page.lastPicture = now
  page.byHttp = page.lost = false
  stopPreview()
  $("last").hidden = true
  if (document.body.dataset.state !== "live" || document.body.classList.contains("dim")) render(now)
}

function watchPictures() {
  video.requestVideoFrameCallback((_, { receiveTime, expectedDisplayTime, rtpTimestamp }) => {
    watchPictures()
    // A track that ends is painted once more, and so may be a picture that stands: nothing new has come.
    if (attached !== session || (rtpTimestamp !== undefined && rtpTimestamp === lastFrame)) return
    lastFrame = rtpTimestamp
    if (receiveTime) shownMs.push(expectedDisplayTime - receiveTime)
    if (shownMs.length > 60) shownMs.shift()
    presented(clock())
  })
}

// --- Pictures by HTTP, while no UDP gets through ---

/** Ends them; null while there are none. */
let preview = null, previewTrouble = ""

async function startPreview() {
  const { signal } = preview = new AbortController()
  while (!signal.aborted) {
    await watch(ofStream("stream.mjpg?fps=10"), signal, showPreview).catch(error => {
      if (!signal.aborted) previewTrouble = error.message
    })
    await new Promise(done => setTimeout(done, PREVIEW_RETRY_MS))
  }
}

function stopPreview() {
  preview?.abort()
  preview = null
  page.blocked = previewTrouble = ""
}

function showPreview(picture, age) {
  const last = $("last")
  copyPicture(last, picture)
  last.hidden = false
  page.lastPicture = page.lastDecoded = clock() - age
  page.byHttp = true
  previewTrouble = ""
  render(clock())
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
  const seen = view(now, page)
  const { body } = document
  const isLive = seen.state === "live" || seen.state === "backup"
  const reason = page.blocked ? [page.blocked, previewTrouble].filter(Boolean).join("; ") : page.reason
  // Without the seconds: what changes is said again.
  const spoken = seen.title && `${seen.state === "old" ? "NO VIDEO" : seen.title}. ${reason}`
  if (body.dataset.state !== seen.state && isLive) setText("spoken", seen.badge)
  else if (!isLive) setText("spoken", spoken)
  body.dataset.state = seen.state
  body.classList.toggle("dim", seen.dim)
  if (!isLive) awake()
  setText("badge", seen.badge)
  setText("title", seen.title)
  setText("reason", seen.state === "live" || seen.badge === "Checking" ? "" : reason)
  $("snapshot").disabled = page.lastPicture === null
  const title = tabTitle(now, page.server?.name, page)
  if (document.title !== title) document.title = title
  keepScreenOn(now, isLive && !document.hidden)
}

function setText(id, text) {
  const element = $(id)
  if (element.textContent !== text) element.textContent = text
}

function renderFigures() {
  const stream = page.server?.streams.find(({ name }) => name === shownStream())
  const mean = shownMs.length ? shownMs.reduce((a, b) => a + b) / shownMs.length : undefined
  const live = document.body.dataset.state === "live" && samples.length > 1
  const size = [video.videoWidth, video.videoHeight]
  const { rows, total, stages } = live
    ? figures(samples[0], samples.at(-1), size, stream, mean, page.server?.viewers, session?.id)
    : { rows: [["State", document.body.dataset.state === "backup" ? "MJPEG by HTTP" : "not live"]], stages: [] }
  setText("delay", total === undefined ? "" : `${total.toFixed(0)} ms`)
  if ($("info").hidden) return
  $("figures").replaceChildren(...rows.flatMap(([label, value]) => [element("dt", label), element("dd", value)]))
  setText("origin", stream ? `${stream.source}, ${stream.encoder}` : "")
  setText("latency", total === undefined ? "–" : `${total.toFixed(0)} ms`)
  setText("stages", stages.map(([name, value]) => `${name} ${value.toFixed(1)}`).join(" + "))
}

function element(name, text) {
  const made = document.createElement(name)
  made.textContent = text
  return made
}

const shownStream = () => page.stream ?? page.server?.streams[0]?.name

/** The server's statistics: its name and its streams. */
function learn(stats) {
  page.server = stats
  const names = stats.streams.map(({ name }) => name)
  if (!names.includes(shownStream())) names.push(shownStream())
  setText("name", stats.name)
  $("choice").hidden = names.length < 2
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

let ticking = false
async function tick() {
  if (ticking || left) return
  ticking = true
  try {
    const now = clock()
    // Nothing is presented in a hidden tab, and timers that slept have seen neither pictures nor their absence.
    if (document.hidden || now - page.lastTick > STALE_MS) awakeAt(now)
    page.lastTick = now
    if (!session && now >= nextStart) start(now)
    if (session) {
      await sample(now)
      act()
    }
    const isOpen = !$("info").hidden
    if (now - refreshed > (isOpen ? STATS_MS : DELAY_MS) && (isOpen || state?.connected)) refreshServer()
    render(clock())
    renderFigures()
  } finally {
    ticking = false
  }
}

let asking = false
function act() {
  if (!session) return
  const { act, reason, probe, blocked } = advise(clock(), state)
  if (blocked) {
    page.blocked = reason
    if (!preview) startPreview()
  }
  if (act === "leave") return leave(reason)
  if (act === "live") page.reason = ""
  else if (act !== "starting") page.reason = reason
  if (probe && !asking) {
    asking = true
    ask().finally(() => { asking = false })
  }
}

function awakeAt(now) {
  page.awakeSince = now
  // So with a session: the server is asked first.
  if (state) {
    state.lastPacket = Math.max(state.lastPacket, now - STALE_MS)
    state.lastPicture = Math.max(state.lastPicture, now - STALE_MS)
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return
  awakeAt(clock())
  if (video.paused && video.srcObject?.active) play()
  render(clock())
})
video.addEventListener("playing", () => { $("play").hidden = true })
// Phones pause a video for reasons of their own.
video.addEventListener("pause", () => { if (!document.hidden && video.srcObject?.active) play() })

addEventListener("pagehide", () => {
  left = true
  stopPreview()
  session?.close()
  session = null
})
// Out of the back-forward cache.
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted) return
  left = false
  nextStart = 0
  awakeAt(clock())
})

// --- Buttons and keys ---

function toggleInfo() {
  const panel = $("info")
  panel.hidden = !panel.hidden
  $("show-info").setAttribute("aria-pressed", String(!panel.hidden))
  refreshServer()
  renderFigures()
}

// Not the video's own fullscreen of phones: it would hide that a picture is old. There the page fills the screen anyway.
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

/** The picture that is on the screen, in the size in which it came, as a PNG file. */
function snapshot() {
  if (page.lastPicture === null) return toast("There is no picture yet")
  const age = clock() - page.lastPicture
  const canvas = document.createElement("canvas")
  copyPicture(canvas, $("last").hidden ? video : $("last"))
  const name = snapshotName(page.server?.name, new Date(Date.now() - age), age)
  canvas.toBlob(blob => {
    if (!blob) return toast("The browser could not make a PNG of the picture")
    const link = document.createElement("a")
    link.href = URL.createObjectURL(blob)
    link.download = name
    link.click()
    // The download has its own hold on it by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 60000)
    toast(age > STALE_MS ? `Saved ${name}: this picture is ${duration(age)} old` : `Saved ${name}`)
  }, "image/png")
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

const showKeys = () => toast("Keys: F or double click Fullscreen, I Information, S Snapshot")
const actions = { f: toggleFullscreen, s: snapshot, i: toggleInfo, "?": showKeys, f1: showKeys }
addEventListener("keydown", event => {
  awake()
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest?.("select")) return
  const action = actions[event.key.toLowerCase()]
  if (action) event.preventDefault()
  action?.()
})
for (const picture of [video, $("last")]) picture.addEventListener("dblclick", toggleFullscreen)
for (const event of ["pointermove", "pointerdown", "focusin"]) addEventListener(event, awake)
$("show-info").addEventListener("click", toggleInfo)
$("snapshot").addEventListener("click", snapshot)
$("fullscreen").addEventListener("click", toggleFullscreen)
$("fullscreen").hidden = !canFill
$("play").addEventListener("click", play)
$("streams").addEventListener("change", ({ target }) => {
  page.stream = target.value
  // So that a reload, or the address given to another, shows the same.
  const address = new URL(location.href)
  address.searchParams.set("stream", page.stream)
  history.replaceState(null, "", address)
  page.lastPicture = page.lastDecoded = null
  stopPreview()
  $("last").hidden = true
  failures = 0
  leave("Another stream was chosen")
  page.lost = false
})

if (presentsItself) watchPictures()
page.awakeSince = page.lastTick = clock()
awake()
tick()
setInterval(tick, TICK_MS)
