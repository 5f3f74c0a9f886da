// Recordings on the vehicle: listed, played in the panel, never in the place of the live picture, downloaded, deleted.

import { listen } from "./events.js"
import { ask } from "./login.js"
import { refusal } from "./session.js"

const REPLY_MS = 10000
/** A recording that is being written grows, and addresses that need a login last an hour. */
const REFRESH_MS = 10000
/** A second click on Delete within this time deletes. */
const SURE_MS = 4000

export function size(bytes) {
  const [unit, factor] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, factor]) => bytes >= factor) ?? ["B", 1]
  return `${(bytes / factor).toFixed(bytes < 10 * factor && factor > 1 ? 1 : 0)} ${unit}`
}

/** What is said of how a stream is recorded; of `GET api/stats`. */
export function state(recording) {
  if (!recording || recording.state === "off") return ""
  if (recording.state === "paused") return `Recording paused: ${recording.reason ?? "the disk cannot be used"}`
  if (recording.state === "waiting")
    return recording.reason ? `Recording waits: ${recording.reason}` : "Recording begins with the next keyframe"
  const left = recording.seconds_left
  const time = left > 7200 ? `${Math.round(left / 3600)} h` : `${Math.round(left / 60)} min`
  const rest = left === undefined ? "" : `, room for ${time}`
  const gaps = recording.gaps ? `, ${recording.gaps} ${recording.gaps === 1 ? "gap" : "gaps"}` : ""
  return `Recording, ${size(recording.bytes)}${rest}${gaps}`
}

/** The recording, and what lies beside it. Without the slash in front: the page may be behind a path of a proxy. */
function filesOf(one) {
  const files =
    [["Download", one.url, ".mp4"], ["Table", one.times_url, ".csv"], ["Subtitles", one.subtitles_url, ".ass"]]
  return files.filter(([, url]) => url).map(([textContent, url, extension]) =>
    ({ href: url.slice(1), download: one.name.replace(/\.mp4$/, extension), textContent }))
}

/** The list in `root`, until it is closed. `mayDelete`: for controllers. */
export class List {
  constructor(root, mayDelete) {
    this.root = root
    this.mayDelete = mayDelete
    this.isClosed = false
    // Not without what is written beside it: a recording that fills the screen would look live.
    const inPlace = { playsInline: true, disablePictureInPicture: true }
    this.video = made("video", { controls: true, hidden: true, preload: "metadata", ...inPlace })
    this.video.controlsList?.add("nofullscreen", "noremoteplayback")
    this.video.addEventListener("webkitbeginfullscreen", () => this.video.webkitExitFullscreen?.())
    this.video.addEventListener("fullscreenchange", () => {
      if (document.fullscreenElement === this.video) document.exitFullscreen()
    })
    this.title = made("p", { className: "playing", hidden: true })
    this.note = made("p", { className: "note" })
    this.rows = made("ul")
    root.replaceChildren(made("h2", { textContent: "Recordings" }), this.title, this.video, this.note, this.rows)
    const why = () => this.video.error?.message || "download it"
    this.video.addEventListener("error", () => this.say(`It cannot be played here: ${why()}`))
    this.leave = listen("recording", () => this.refresh())
    this.timer = setInterval(() => this.refresh(), REFRESH_MS)
    this.refresh()
  }

  close() {
    this.isClosed = true
    this.leave()
    clearInterval(this.timer)
    this.video.removeAttribute("src")
    this.video.load()
    this.root.replaceChildren()
  }

  say(text) {
    this.note.textContent = text
  }

  async refresh() {
    try {
      const reply = await ask("api/recordings", { signal: AbortSignal.timeout(REPLY_MS) })
      if (!reply.ok) throw await refusal(reply)
      const { recordings, free_bytes: free } = await reply.json()
      if (this.isClosed) return
      this.say(recordings.length ? `${size(free)} free` : `Nothing was recorded yet; ${size(free)} free`)
      // A click between two lists is not lost: what has not changed stays.
      const former = new Map([...this.rows.children].map(row => [row.dataset.name, row]))
      this.rows.replaceChildren(...recordings.map(one => {
        const row = former.get(one.name)
        if (!row || row.dataset.state !== stateOf(one)) return this.row(one)
        row.adopt(one)
        return row
      }))
    } catch (error) {
      if (!this.isClosed) this.say(`The recordings cannot be listed: ${error.message}`)
    }
  }

  row(one) {
    const row = made("li")
    row.dataset.name = one.name
    row.dataset.state = stateOf(one)
    const begun = new Date(one.begun)
    const when = made("time", { dateTime: one.begun, textContent: begun.toLocaleString(), title: one.begun })
    const textContent = `${one.label}, ${size(one.bytes)}${one.is_open ? ", being recorded" : ""}`
    const what = made("span", { textContent })
    const play = made("button", { type: "button", textContent: "Play" })
    play.addEventListener("click", () => this.play(one))
    // Where a login is needed, each list has other addresses.
    row.adopt = newer => {
      one.url = newer.url
      filesOf(newer).forEach(({ href }, at) => { links[at].href = href })
    }
    const links = filesOf(one).map(file => made("a", file))
    row.append(when, what, play, ...links)
    if (this.mayDelete && !one.is_open) row.append(this.deleting(one))
    return row
  }

  deleting(one) {
    const button = made("button", { type: "button", textContent: "Delete" })
    let sure = 0
    button.addEventListener("click", async () => {
      clearTimeout(sure)
      if (button.textContent === "Delete") {
        button.textContent = "Delete for good?"
        sure = setTimeout(() => { button.textContent = "Delete" }, SURE_MS)
        return
      }
      button.disabled = true
      try {
        const signal = AbortSignal.timeout(REPLY_MS)
        const reply = await ask(`api/recordings/${encodeURIComponent(one.name)}`, { method: "DELETE", signal })
        if (!reply.ok) throw await refusal(reply)
      } catch (error) {
        return this.say(`Not deleted: ${error.message}`)
      }
      this.refresh()
    })
    return button
  }

  play(one) {
    this.title.textContent = `Not live: ${one.label}, ${new Date(one.begun).toLocaleString()}`
    this.title.hidden = this.video.hidden = false
    this.video.src = one.url.slice(1)
    this.video.play().catch(() => {})
  }
}

function stateOf(one) {
  return `${one.bytes} ${one.is_open} ${Boolean(one.subtitles_url)}`
}

function made(name, properties = {}) {
  return Object.assign(document.createElement(name), properties)
}
