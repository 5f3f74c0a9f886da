// Pictures by HTTP, out of `multipart/x-mixed-replace` as rov-server sends it: what is shown where no UDP gets through.

import { earliest, zeroWith } from "./age.js"
import { ask } from "./login.js"
import { refusal } from "./session.js"

/** So much later than the quickest picture, one is old: what waits on the way is given up, with the connection. */
const LATE_MS = 2000
/** The server ends the stream itself where it has nothing to send. */
const SILENT_MS = 5000
/** Between two pieces, the time of day goes on by so much more or less than this clock: see `watch`. */
const STEP_MS = 500
const MAX_HEADER = 4096
const MAX_PICTURE = 16 << 20

/** What came and is not whole yet. */
export class Parts {
  #held = new Uint8Array(0)
  /** When the header of the part came that is not whole yet. */
  #begun = null

  /**
   * The parts that are whole with these bytes, which came at `now`: `{ time, begun, jpeg }`, in ms the picture's time
   * by the server's clock, and when its header came.
   */
  push(bytes, now) {
    const all = new Uint8Array(this.#held.length + bytes.length)
    all.set(this.#held)
    all.set(bytes, this.#held.length)
    const parts = []
    let at = 0
    for (;;) {
      const header = String.fromCharCode(...all.subarray(at, at + MAX_HEADER))
      const end = header.indexOf("\r\n\r\n")
      if (end < 0 && header.length === MAX_HEADER) throw new Error("The server sends no MJPEG")
      if (end < 0) break
      const field = name => Number(header.slice(0, end).match(new RegExp(`^${name}: *([\\d.]+)`, "im"))?.[1])
      const length = field("Content-Length"), start = at + end + 4
      if (!(length <= MAX_PICTURE)) throw new Error("The server sends no MJPEG")
      this.#begun ??= now
      if (all.length < start + length) break
      parts.push({ time: 1000 * field("X-Timestamp"), begun: this.#begun, jpeg: all.slice(start, start + length) })
      at = start + length
      this.#begun = null
    }
    this.#held = all.slice(at)
    return parts
  }
}

/**
 * Calls `show(picture, age, time, id)` for each picture of `path` until `signal`; of several that have come, for the
 * newest. `age` in ms: how much later than the quickest header of the last minutes it was whole. So a slow link shows
 * by the first picture already. `time`: of its capture, by the server's clock. `id` of the server, null where it does
 * not say it.
 * Fails at the end, which comes sooner or later.
 */
export async function watch(path, signal, show) {
  const end = new AbortController()
  const left = () => end.abort()
  const silent = () => end.abort(new Error("No pictures come by HTTP"))
  signal.addEventListener("abort", left)
  let timer = setTimeout(silent, SILENT_MS)
  try {
    const reply = await ask(path, { signal: end.signal })
    if (!reply.ok) throw await refusal(reply)
    const id = reply.headers.get("x-server-id"), reader = reply.body.getReader(), parts = new Parts()
    // By so much the quickest header came behind its picture's time: the clocks differ, and drift apart.
    let zero = null, wasAhead = null
    for (;;) {
      const { done, value } = await reader.read()
      if (done) throw new Error("The server has ended the MJPEG stream")
      clearTimeout(timer)
      timer = setTimeout(silent, SILENT_MS)
      const now = performance.now(), ahead = Date.now() - now
      // Asleep, this clock stands still: what waited meanwhile would look new.
      if (Math.abs(ahead - (wasAhead ?? ahead)) > STEP_MS) throw new Error("This machine slept, or its clock was set")
      wasAhead = ahead
      const part = parts.push(value, now).at(-1)
      if (!part) continue
      // One connection is of one run of the server.
      zero = zeroWith(zero, 0, part.begun - part.time, now)
      const least = earliest(zero)
      if (now - part.time - least > LATE_MS) throw new Error("MJPEG comes too late over this link")
      const picture = await createImageBitmap(new Blob([part.jpeg], { type: "image/jpeg" }))
      if (!end.signal.aborted) show(picture, performance.now() - part.time - least, part.time, id)
      picture.close()
    }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener("abort", left)
    end.abort()
  }
}
