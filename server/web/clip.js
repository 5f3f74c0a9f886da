// The last seconds of a stream, or those around a moment, as the server keeps them, into a file of the browser.

import { ask } from "./login.js"
import { size } from "./recordings.js"
import { refusal } from "./session.js"
import { clock } from "./watched.js"

/** Half a minute of what is watched, at the tenth of the link that the server gives for it. */
const CLIP_MS = 600000
/** For the answer to begin, at first and at last: an outage may have lost a question together with its connection. */
const HEAD_MS = 3000
const LONGEST_HEAD_MS = 12000
/** Between two pieces of it: longer than an outage. */
const SILENCE_MS = 45000
/** Between two questions, where the server does not answer or gives others their clips. */
const PAUSE_MS = 1000
const LONGEST_PAUSE_MS = 5000
/** What a ring has, where the server does not say so. */
const KEPT_S = 30
/** It has it for longer where the encoder rests, as in an outage that no other viewer is there for. */
const RESTS_MS = 60000
/** The end of a clip of pictures that come is closer to the moment. */
const OLD_MS = 2000

/** Downloads `blob` under this name. */
export function keepFile(blob, name) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  // The download has its own hold on it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60000)
}

export const pause = (ms, signal) => new Promise(resolve => {
  const timer = setTimeout(resolve, ms)
  signal.addEventListener("abort", () => {
    clearTimeout(timer)
    resolve()
  }, { once: true })
})

/**
 * A clip of the pictures `around` a moment: `{ stream, moment, captured, run, before, after }` in ms, `moment` by
 * `clock()`, `captured` by the clock of captures of this `run` of the server, where that is known, so that it is the
 * same however late it is asked for. It is asked for again while the server is away, gives others theirs or breaks off,
 * until its ring, which keeps `kept` seconds, cannot have the moment any more. Fetched, as a link could not carry the
 * login. `server`: the id of the one whose clip it shall be, where that is known.
 */
export async function fetchClip(around, { server, kept, signal }) {
  const longest = kept ?? KEPT_S
  const until = around.moment + longest * 1000 + (around.captured === undefined ? 0 : RESTS_MS)
  for (let tries = 0; ; tries += 1) {
    const wait = Math.min(PAUSE_MS * 2 ** tries, LONGEST_PAUSE_MS)
    try {
      return await request(around, Math.min(HEAD_MS * 2 ** tries, LONGEST_HEAD_MS), { server, kept, signal })
    } catch (error) {
      const isAway = error instanceof TypeError || error.name === "TimeoutError"
      if (signal.aborted || !isAway && error.status !== 429 && !(error.status >= 500)) throw error
      if (clock() + wait >= until) {
        const since = Math.floor((clock() - around.moment) / 1000)
        throw new Error(`${error.message}; given up after ${since} s, as the vehicle keeps ${longest} s (--ring)`)
      }
    }
    await pause(wait, signal)
  }
}

/** Asks once; the answer begins within `head` ms. */
async function request(around, head, { server, kept, signal }) {
  const stop = new AbortController(), end = () => stop.abort(signal.reason)
  if (signal.aborted) end()
  signal.addEventListener("abort", end)
  const whole = setTimeout(() => stop.abort(new Error("it did not come in time")), CLIP_MS)
  let silence
  const within = ms => {
    clearTimeout(silence)
    silence = setTimeout(() => stop.abort(new DOMException("the server does not answer", "TimeoutError")), ms)
  }
  const get = query => {
    within(head)
    return ask(`api/clip?${new URLSearchParams(query)}`, { signal: stop.signal })
  }
  try {
    const { stream, moment, captured, run, before, after } = around
    const isKnown = captured !== undefined, of = stream ? { stream } : {}
    // A server of an earlier version knows the last seconds alone.
    const late = Math.max(clock() - moment - after, 0) + head - HEAD_MS
    const last = { ...of, seconds: Math.round((before + after + late) / 1000) }
    const micros = ms => Math.round(ms * 1000)
    const times = isKnown ? { from: micros(captured - before), to: micros(captured + after), ...run && { run } } : {}
    let wanted = { ...last, ...times }, reply = await get(wanted)
    // It stands still since: what was last.
    if (reply.status === 409 && isKnown && !after) reply = await get(wanted = last)
    // It keeps less: all of that.
    if (reply.status === 422) {
      delete wanted.seconds
      reply = await get({ ...wanted, ...kept && { seconds: Math.floor(kept) } })
    }
    if (!reply.ok) throw await refusal(reply)
    const id = reply.headers.get("x-server-id")
    // Earlier versions do not say it.
    if (server && id && id !== server) {
      stop.abort(new Error("another server answers there by now"))
      stop.signal.throwIfAborted()
    }
    const name = reply.headers.get("content-disposition")?.match(/filename="([^"]+)"/)?.[1] ?? "clip.mp4"
    const number = header => Number(reply.headers.get(header) ?? NaN)
    const [begun, lasted, age] = [number("x-timestamp"), number("x-content-duration"), number("x-age")]
    const came = clock(), pieces = [], reader = reply.body.getReader()
    for (;;) {
      within(SILENCE_MS)
      const { done, value } = await reader.read()
      if (done) break
      pieces.push(value)
    }
    const blob = new Blob(pieces, { type: "video/mp4" })
    return { name, begun: begun * 1000, lasted: lasted * 1000, age: age * 1000, came, blob }
  } catch (error) {
    // Browsers tell the reader of a body that it was broken off, and not why.
    throw stop.signal.aborted ? stop.signal.reason : error
  } finally {
    clearTimeout(whole)
    clearTimeout(silence)
    signal.removeEventListener("abort", end)
  }
}

/** What a clip has not of the seconds that were to end with a moment, as it came late or its stream stands still. */
function missing({ moment, captured, before }, { begun, lasted, age, came }) {
  const seconds = ms => Math.floor(ms / 1000), late = came - moment
  const isKnown = captured !== undefined && !isNaN(begun + lasted)
  const early = isKnown ? captured - begun - lasted : age
  if (early >= OLD_MS) return `; it ended ${seconds(early)} s before it was asked for`
  if (!isKnown) return late >= OLD_MS ? `; it ends up to ${seconds(late)} s after the key` : ""
  const first = begun - (captured - before)
  // Without an outage it has what there was.
  if (late < HEAD_MS || first < 1000) return ""
  return `; it came too late for the first ${seconds(first)} s, which are not kept any more`
}

/** Hands a clip to `keep`; what is to be said of it, with `doubt` of its pictures. Else as `fetchClip`. */
export async function saveClip(around, options, doubt, keep) {
  try {
    const clip = await fetchClip(around, options)
    keep(clip.blob, clip.name)
    const said = `${Math.round(clip.lasted / 1000)} s, ${size(clip.blob.size)}${missing(around, clip)}`
    return `Saved ${clip.name}: ${said}${doubt && `; ${doubt}`}`
  } catch (error) {
    return `No clip was saved: ${error.message}`
  }
}
