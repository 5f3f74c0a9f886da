// What the server wants written over the pictures: the time of day, a text, telemetry. As text alone, which never
// becomes a part of the page.

import { earliest, zeroWith } from "./age.js"
import { listen, reconnect } from "./events.js"
import { clock } from "./watched.js"

const UNKNOWN = "--"
/** A time of day that is older is not shown. */
const TIME_MS = 2000
/** Of the picture's height: letters are so high. */
const HEIGHT = 0.026
const LEAST_PX = 13

/** By the names of the streams. */
const overlays = new Map()
/** The newest values, and when they came, or would have come if they had not waited on the way. */
let newest = null, at = 0
/** The id of the server that says all this; null: it is not known. */
let teller = null
/**
 * When the server's clock was at zero, as `zeroWith` has it. It outlasts connections, as one may begin with values that
 * waited; null before the first.
 */
let zero = null

/** Each ends that the server is listened to. */
let leave = []

/** Whether the server is listened to from now on. */
export function follow(isWanted) {
  if (isWanted === leave.length > 0) return
  for (const call of leave) call()
  overlays.clear()
  newest = null
  leave = isWanted ? [
    // What was so before may be other by now.
    listen("connected", id => {
      teller = id
      overlays.clear()
      newest = null
    }),
    listen("overlay", overlay => overlays.set(overlay.stream, overlay)),
    listen("telemetry", values => {
      newest = values
      const now = clock()
      zero = zeroWith(zero, values.run, now - values.at_ms, now)
      at = Math.min(now, earliest(zero) + values.at_ms)
    }),
  ] : []
  // What is so is told at the beginning of a connection.
  if (isWanted) reconnect()
}

/** Whether it is of this server; another one may have its address by now. */
const isOf = server => !teller || !server || teller === server

/** What the vehicle of this id measures now, by the names of the fields; empty: it says nothing of that. */
export function measured(server) {
  if (!isOf(server)) return {}
  const since = clock() - at
  const fields = Object.entries(newest?.fields ?? {}).map(([name, field]) => {
    const known = since <= TIME_MS ? field : { value: null, text: UNKNOWN }
    return [name, { value: known.value, text: known.text, age_ms: Math.round(field.age_ms + since) }]
  })
  return Object.fromEntries(fields)
}

/** The lines of an overlay, where its values came so long ago. As `common`'s `overlay` has them. */
export function linesOf(overlay, values, sinceMs) {
  const time = sinceMs <= TIME_MS ? values?.times[overlay.stream] : undefined
  const field = ({ name, label, limit_ms: limit }) => {
    const value = values?.fields[name]
    return `${label} ${value && value.age_ms + sinceMs <= limit ? value.text : UNKNOWN}`
  }
  const text = overlay.text ? overlay.text.split("\n") : []
  return [...overlay.has_time ? [time ?? UNKNOWN] : [], ...text, ...overlay.fields.map(field)]
}

/** Writes what is to be written over the pictures of this stream of `server` into `root`; `video` shows them. */
export function write(root, server, stream, video, isLive) {
  const overlay = overlays.get(stream)
  const isWanted = isLive && isOf(server) && video.videoWidth > 0 && ["client", "both"].includes(overlay?.where)
  root.hidden = !isWanted
  if (!isWanted) return
  const lines = linesOf(overlay, newest, clock() - at).join("\n")
  if (root.textContent !== lines) root.textContent = lines
  const { clientWidth, clientHeight, videoWidth, videoHeight } = video
  const scale = Math.min(clientWidth / videoWidth, clientHeight / videoHeight)
  // On a slow link a smaller picture comes than that in which places are meant.
  const part = overlay.height ? videoHeight / overlay.height : 1
  const place = (offset, side, shown) => `${(shown - side * scale) / 2 + offset * part * scale}px`
  root.style.left = place(overlay.x, videoWidth, clientWidth)
  root.style.top = place(overlay.y, videoHeight, clientHeight)
  root.style.fontSize = `${Math.max(LEAST_PX, HEIGHT * videoHeight * scale)}px`
}
