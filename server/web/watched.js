// A stream that is watched, and where its pictures go: the large picture, and each tile of the grid.

import { STALE_MS, advise, retryDelay } from "./advice.js"
import { Ages, ClockSync, LateAlarm, MAX_AGE_MS, capturedAt, millis } from "./age.js"
import { read } from "./figures.js"
import { watch } from "./mjpeg.js"
import { Refused, Session, probe, serverClock } from "./session.js"

/** Over which the figures are means. */
const WINDOW_MS = 2000
/** Between two questions for the server's clock; the first of a session are closer together. */
const CLOCK_MS = 1000
const FIRST_CLOCK_MS = 200
const FIRST_CLOCKS = 5
/**
 * After so long without an answer there are two questions, at the most: browsers have few connections. For a third, the
 * oldest is given up.
 */
const CLOCK_RETRY_MS = 5000
const MAX_CLOCKS = 2
/** Timestamps of pictures that differ so much from when these are shown are those of another pipeline. */
const JUMP_MS = 3000
/** From which age on pictures are warned of: as the address of the page says. */
const maxAge = (() => {
  const given = new URLSearchParams(location.search).get("max-age")
  return given !== null && /^\d{1,5}$/.test(given) ? Number(given) : MAX_AGE_MS
})()
/** Between two tries to get pictures by HTTP. */
const PREVIEW_RETRY_MS = 1000
/** Browsers open 6 connections to a host: statistics and WHEP need some of them. */
const MAX_PREVIEWS = 4
/** Of all streams that are watched. */
let previews = 0

// Time that goes on while the machine sleeps, which performance.now() may not; a clock that is set back does not
// matter.
let slept = 0, lastWall = Date.now(), lastMono = performance.now()
export function clock() {
  const wall = Date.now(), mono = performance.now()
  const missed = (wall - lastWall) - (mono - lastMono)
  if (missed > 1000) slept += missed
  lastWall = wall
  lastMono = mono
  return mono + slept
}

const presentsItself = "requestVideoFrameCallback" in HTMLVideoElement.prototype

export function copyPicture(canvas, picture) {
  canvas.width = picture.videoWidth ?? picture.width
  canvas.height = picture.videoHeight ?? picture.height
  canvas.getContext("2d").drawImage(picture, 0, 0)
}

/** Why no session came about, in words. */
function failure(error) {
  if (error instanceof Refused) return error.message
  const silent = error instanceof TypeError || error.name === "TimeoutError"
  return silent ? "The server does not answer" : `The browser makes no connection: ${error.message}`
}

export class Watched {
  /** When a picture was last presented. */
  lastPicture = null
  /** When one was last decoded: also while none is presented, in a hidden tab. */
  lastDecoded = null
  /** When that was captured, in ms since 1970 by the server's clock; null: not known. */
  lastCaptured = null
  /** That picture came by HTTP. */
  byHttp = false
  /** Why no video comes by WebRTC although the server answers, while that is so. */
  blocked = ""
  connected = false
  /** A session was lost or refused since there was a picture. */
  lost = false
  reason = ""
  previewTrouble = ""
  /** Means of the browser's own counters, and of the time from packet to screen. */
  samples = []
  shownMs = []
  /** Ages of the pictures of the last seconds when they were shown, `{ age, bound, at }`. */
  ages = []
  /** Of all. */
  allAges = new Ages()
  /** Why these are not known. */
  ageUnknown = ""
  /** The session that is, or null. */
  session = null
  /** The server's clock, one for all streams, and those who want it. */
  static #sync = new ClockSync()
  static #feeds = new Set()
  static #clocks = 0
  static #clockAsked = -Infinity
  /** Questions that are not answered, the oldest first: when they were asked, and what stops them. */
  static #questions = []
  /** When what is known of it was last forgotten. */
  static #forgotten = -Infinity
  /** The timestamp of a picture of the session and when that was captured; null: not known. */
  #anchor = null
  #alarm = new LateAlarm(maxAge)
  /** What `advise` wants to know of it. */
  #state = null
  /** The session whose counters the browser is asked for, until it tells them. */
  #sampled = null
  /** The session whose track the video shows. */
  #attached = null
  #failures = 0
  #nextStart = 0
  #lastFrame = null
  /** Of the session before: the video may paint its last picture once more when it has the new track. */
  #formerFrame = null
  #lastShown = null
  /** Ends the pictures by HTTP; null while there are none. */
  #preview = null
  /** The stream is MJPEG: no session comes about, as WebRTC does not carry it. */
  #isMjpeg = false
  #asking = false
  #closed = false
  /** As `behind`; not any more when the next picture has come. */
  #behind = null

  /**
   * `name` of the stream, null: the server's first. `video` and `last`, a canvas for what is no video, show it. `on`:
   * `presented(now)` a picture, `stats(stats)` of the server, `doubts(doubts, first)` of pictures by their streams,
   * `proven(key)`: the pictures that come from now on are of a server of this key, `opened()`, or refused, `isOf(id)`:
   * whether pictures of the server of this id are those of the one whose name is shown, `blocked()`: a touch is needed.
   */
  constructor(name, video, last, on) {
    Object.assign(this, { name, video, last, on })
    Watched.#feeds.add(this)
    if (presentsItself) this.#watchPictures()
    else this.ageUnknown = "This browser does not tell when it shows a picture"
    video.addEventListener("pause", this.#goOn)
  }

  // Phones pause a video for reasons of their own.
  #goOn = () => { if (!document.hidden && !this.#closed && this.video.srcObject?.active) this.play() }

  /** The path for the stream that was chosen. One that is gone is refused: another would be taken for it. */
  #ofStream(path) {
    if (this.name === null) return path
    return `${path}${path.includes("?") ? "&" : "?"}stream=${encodeURIComponent(this.name)}`
  }

  #start(now) {
    this.#failures += 1
    this.#nextStart = Infinity
    this.samples = []
    const mine = this.session = new Session()
    this.#anchor = null
    Watched.#hurryClock()
    this.#state = {
      lastPacket: now, lastPicture: now, connected: false, foundPath: false, hadPicture: false, paths: [], ended: null,
      probed: null,
    }
    mine.open(this.#ofStream("whep"), track => this.#show(mine, track), this.#failures > 1).then(() => {
      if (mine !== this.session) return
      this.#isMjpeg = false
      this.on.opened?.()
    }).catch(error => {
      if (mine !== this.session) return
      this.#leave(failure(error), error instanceof Refused)
      if (error instanceof Refused) this.#setMjpeg(error.isMjpeg)
      // One that refuses a stream has others to choose from.
      if (error instanceof Refused) this.on.opened?.()
    })
  }

  /** By its answer; an outage says nothing of it, and the pictures go on at their own rate after that. */
  #setMjpeg(isMjpeg) {
    // Pictures that were begun before come at another rate.
    if (isMjpeg && !this.#isMjpeg) this.stopPreview()
    this.#isMjpeg = isMjpeg
    if (isMjpeg) this.#showByHttp("This stream is MJPEG: pictures by HTTP")
  }

  #leave(reason, refused = false) {
    this.#freeze()
    this.session?.close()
    this.session = null
    this.connected = false
    this.lost = true
    if (reason !== this.blocked) this.blocked = ""
    this.reason = refused ? reason : `${reason}; reconnecting`
    this.#nextStart = clock() + retryDelay(this.#failures, refused)
  }

  #show(mine, track) {
    if (mine === this.session) this.on.proven?.(mine.key)
    const attach = () => {
      if (mine !== this.session) return
      this.#attached = mine
      this.#formerFrame = this.#lastFrame ?? this.#formerFrame
      this.#lastFrame = null
      this.video.srcObject = new MediaStream([track])
      this.play()
    }
    // Nothing is changed for a track that may never show anything.
    if (track.muted && this.lastPicture !== null) track.addEventListener("unmute", attach, { once: true })
    else attach()
  }

  /**
   * Keeps the last picture on the screen, dimmed, until there is a new one: the video turns black with the end of its
   * track.
   */
  #freeze() {
    if (this.lastPicture === null || !this.last.hidden || !this.video.videoWidth) return
    copyPicture(this.last, this.video)
    this.last.hidden = false
  }

  play() {
    this.video.play().catch(error => {
      // Low power mode and strict settings want a touch. Other failures are those of a track that was replaced.
      if (error.name === "NotAllowedError") this.on.blocked?.()
    })
  }

  /** How packets and pictures come, by the browser's own counters: these work in a hidden tab too. */
  async #sample(now) {
    const mine = this.#sampled = this.session, state = this.#state
    const stats = await mine.stats().catch(error => console.info("counters:", error.message))
    if (mine !== this.session) return
    this.#sampled = null
    const report = read(stats ?? new Map())
    const before = this.samples.at(-1)
    if (report.packets > (before?.packets ?? 0)) state.lastPacket = now
    if (report.decoded > (before?.decoded ?? 0)) {
      state.lastPicture = now
      state.hadPicture = true
      this.lastDecoded = now
      this.#failures = 0
      if (!presentsItself) {
        this.lastCaptured = null
        this.#presented(now)
      }
    }
    state.connected = this.connected = mine.connected
    state.foundPath = mine.foundPath
    state.paths = mine.paths
    state.ended = mine.ended
    this.samples.push({ ...report, taken: now })
    while (this.samples.length > 2 && this.samples[1].taken < now - WINDOW_MS) this.samples.shift()
  }

  async #ask() {
    const mine = this.session
    const answer = await probe(mine.id, this.name)
    if (answer.stats) this.on.stats?.(answer.stats)
    if (mine === this.session) this.#state.probed = { ...answer, at: clock() }
  }

  // --- Age ---

  static #hurryClock() {
    Watched.#clocks = 0
    Watched.#clockAsked = -Infinity
  }

  static async #askClock(now) {
    const pause = Watched.#clocks < FIRST_CLOCKS ? FIRST_CLOCK_MS : CLOCK_MS
    // One question at a time, and another where the connection of the first may have been lost with the link.
    const questions = Watched.#questions
    if (now - Watched.#clockAsked < (questions.length ? CLOCK_RETRY_MS : pause)) return
    if (questions.length >= MAX_CLOCKS) {
      // However urgent it is: through a queue an answer takes its time.
      if (now - questions[0].at < CLOCK_RETRY_MS) return
      questions.shift().stop.abort()
      for (const feed of Watched.#feeds) feed.#clockRead({ error: new Error("no answer") })
    }
    const question = { at: now, stop: new AbortController() }
    questions.push(question)
    Watched.#clockAsked = now
    Watched.#clocks += 1
    const ids = [...Watched.#feeds].map(({ session }) => session?.id).filter(Boolean)
    const answer = await serverClock(ids, question.stop.signal).catch(error => ({ error }))
    const place = questions.indexOf(question)
    if (place < 0) return
    questions.splice(place, 1)
    if (!answer.error) {
      Watched.#sync.add(answer)
      // What an older one may prove is less.
      for (const older of questions.splice(0, place)) older.stop.abort()
    }
    for (const feed of Watched.#feeds) feed.#clockRead(answer)
  }

  /** What may have been captured by now, as `ClockSync` tells it. */
  static latest() {
    return Watched.#sync.latest(performance.now())
  }

  #clockRead({ error, pictures, doubts, first }) {
    if (error) return void (this.ageUnknown ||= `The server does not tell its clock: ${error.message}`)
    this.#anchor = pictures[this.session?.id] ?? this.#anchor
    this.on.doubts?.(doubts, first)
  }

  /**
   * A picture that was captured then, by the server's clock, is shown at `at`, by `performance.now()`; else why not.
   */
  #aged(captured, at, why) {
    const known = captured === undefined ? null : Watched.#sync.age(captured, at)
    // Later than now is none.
    this.lastCaptured = known || Watched.#sync.isUnknown ? captured ?? null : null
    if (known) {
      this.ages.push({ ...known, at })
      this.allAges.add(known.age)
    }
    this.ageUnknown = known ? "" : why || this.ageUnknown
    if (!known && captured !== undefined && !Watched.#sync.isUnknown) {
      this.ageUnknown = "The pictures' times of capture are later than the server's clock"
      if (at - Watched.#forgotten > CLOCK_MS) {
        // This machine was suspended, or the server has another clock by now.
        Watched.#forgotten = at
        Watched.#sync.forget()
        Watched.#hurryClock()
      }
    }
    while (this.ages.length && this.ages[0].at < at - WINDOW_MS) this.ages.shift()
    this.#alarm.shown(known, at)
  }

  /** Why it is not known any more whether they are old, while that is warned of; else "". */
  get blind() {
    if (!this.#alarm.isBlind) return ""
    const bound = this.ages.at(-1)?.bound
    return this.ageUnknown || `The server's clock is known to ±${bound?.toFixed(0) ?? "?"} ms only`
  }

  /** How old the pictures are, while they move and are older than they may be; else null. */
  get late() {
    return this.#alarm.age(performance.now())
  }

  // --- Pictures ---

  #presented(now) {
    this.lastPicture = now
    // Also where the browser does not tell its counters.
    Object.assign(this.#state, { lastPacket: now, lastPicture: now, hadPicture: true })
    this.#failures = 0
    this.byHttp = this.lost = this.#isMjpeg = false
    this.stopPreview()
    this.last.hidden = true
    this.on.presented?.(now)
  }

  #watchPictures() {
    this.video.requestVideoFrameCallback((_, { receiveTime, expectedDisplayTime, rtpTimestamp }) => {
      if (this.#closed) return
      this.#watchPictures()
      // A track that ends is painted once more, and so may be a picture that stands: nothing new has come.
      if (this.#attached !== this.session) return
      if (rtpTimestamp !== undefined && [this.#lastFrame, this.#formerFrame].includes(rtpTimestamp)) return
      if (this.#isJump(rtpTimestamp, expectedDisplayTime)) {
        this.#anchor = null
        Watched.#hurryClock()
      }
      this.#lastFrame = rtpTimestamp
      this.#lastShown = expectedDisplayTime
      if (receiveTime) this.shownMs.push(expectedDisplayTime - receiveTime)
      if (this.shownMs.length > 60) this.shownMs.shift()
      const why = rtpTimestamp === undefined ? "This browser does not tell the timestamps of pictures"
        : this.#anchor ? "" : "The server has not said yet when the pictures were captured"
      this.#aged(why ? undefined : capturedAt(rtpTimestamp, this.#anchor), expectedDisplayTime, why)
      this.#presented(clock())
    })
  }

  /** Another pipeline has timestamps of its own, of which nothing is known. */
  #isJump(rtpTimestamp, shown) {
    if (rtpTimestamp === undefined || this.#lastFrame === null || this.#lastFrame === undefined) return false
    const passed = millis(rtpTimestamp, this.#lastFrame)
    return passed < 0 || Math.abs(passed - (shown - this.#lastShown)) > JUMP_MS
  }

  // --- Pictures by HTTP, while no UDP gets through, or of MJPEG ---

  #showByHttp(why) {
    this.blocked = why
    if (!this.#preview) this.#startPreview()
  }

  async #startPreview() {
    const { signal } = this.#preview = new AbortController()
    const show = (picture, age, captured, id) => {
      if (this.on.isOf?.(id) ?? true) this.#showPreview(picture, age, captured)
      else this.previewTrouble = "the server has not said its name yet"
    }
    while (!signal.aborted) {
      if (previews < MAX_PREVIEWS) {
        previews += 1
        await watch(this.#ofStream(`stream.mjpg?fps=${this.#isMjpeg ? 60 : 10}`), signal, show).catch(error => {
          if (!signal.aborted) this.previewTrouble = error.message
        })
        previews -= 1
      } else {
        this.previewTrouble = `MJPEG comes of ${MAX_PREVIEWS} streams at once; this one has it when it is made large`
      }
      await new Promise(done => setTimeout(done, PREVIEW_RETRY_MS))
    }
  }

  stopPreview() {
    this.#preview?.abort()
    this.#preview = null
    this.blocked = this.previewTrouble = ""
  }

  #showPreview(picture, age, captured) {
    copyPicture(this.last, picture)
    this.#aged(captured, performance.now())
    this.last.hidden = false
    const now = clock()
    this.lastPicture = this.lastDecoded = now - age
    this.byHttp = true
    this.previewTrouble = ""
    this.on.presented?.(now)
  }

  // --- Time ---

  /** To be called several times a second. Waits for nothing: what the browser does not tell holds up nobody. */
  tick(now) {
    if (this.#closed) return
    if (!this.session && now >= this.#nextStart) this.#start(now)
    if (this.session || this.#isMjpeg) Watched.#askClock(now)
    if (!this.session) return
    if (this.#sampled === this.session) this.#act()
    else this.#sample(now).then(() => this.#act())
  }

  #act() {
    if (!this.session) return
    const { act, reason, probe, blocked } = advise(clock(), this.#state)
    if (blocked) this.#showByHttp(reason)
    if (act === "leave") return this.#leave(reason)
    if (act === "live") this.reason = ""
    else if (act !== "starting") this.reason = reason
    if (probe && !this.#asking) {
      this.#asking = true
      this.#ask().finally(() => { this.#asking = false })
    }
  }

  /** Timers that slept have seen neither pictures nor their absence: the server is asked first. */
  awakeAt(now) {
    if (!this.#state) return
    this.#state.lastPacket = Math.max(this.#state.lastPacket, now - STALE_MS)
    this.#state.lastPicture = Math.max(this.#state.lastPicture, now - STALE_MS)
  }

  /** Why there is no picture, or no better one. */
  get why() {
    return this.blocked ? [this.blocked, this.previewTrouble].filter(Boolean).join("; ") : this.reason
  }

  /** Another server answers than `server`, of which the picture that stands is. */
  leaveBehind(server) {
    // Or it is of one before that one.
    if (this.lastPicture !== null && !this.behind) this.#behind = { picture: this.lastPicture, server }
    // What comes by HTTP may be of that one for long.
    if (!this.#preview) return
    this.#preview.abort()
    this.#startPreview()
  }

  /** `{ server }`, what the server of the picture said last, where that is another one than answers now; else null. */
  get behind() {
    return this.#behind?.picture === this.lastPicture ? this.#behind : null
  }

  /** Its session is with a server that is not watched any more. */
  leave(reason) {
    if (this.session) this.#leave(reason)
  }

  /** Ends the session, so that the server's encoder may rest; `resume` begins another. */
  pause() {
    this.stopPreview()
    this.session?.close()
    this.session = null
    this.#nextStart = Infinity
  }

  resume() {
    this.#nextStart = 0
  }

  /** For good. */
  close() {
    this.#closed = true
    Watched.#feeds.delete(this)
    this.pause()
    this.video.removeEventListener("pause", this.#goOn)
    this.video.srcObject = null
  }
}
