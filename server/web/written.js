// What the server wants written over the pictures: the time of day, a text, telemetry. As text alone, which never
// becomes a part of the page.

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
/** Of all values of the connection, the earliest that the server's clock was at zero; null before the first. */
let zero = null

/** Each ends that the server is listened to. */
let leave = []

/** Whether the server is listened to from now on. */
export function follow(isWanted) {
  if (isWanted === leave.length > 0) return
  for (const call of leave) call()
  overlays.clear()
  leave = isWanted ? [
    // What was so before may be other by now.
    listen("connected", () => {
      overlays.clear()
      zero = null
    }),
    listen("overlay", overlay => overlays.set(overlay.stream, overlay)),
    listen("telemetry", values => {
      newest = values
      zero = Math.min(zero ?? Infinity, clock() - values.at_ms)
      at = Math.min(clock(), zero + values.at_ms)
    }),
  ] : []
  // What is so is told at the beginning of a connection.
  if (isWanted) reconnect()
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

/** Writes what is to be written over the pictures of this stream into `root`; `video` shows them. */
export function write(root, stream, video, isLive) {
  const overlay = overlays.get(stream)
  const isWanted = isLive && video.videoWidth > 0 && ["client", "both"].includes(overlay?.where)
  root.hidden = !isWanted
  if (!isWanted) return
  const lines = linesOf(overlay, newest, clock() - at).join("\n")
  if (root.textContent !== lines) root.textContent = lines
  const { clientWidth, clientHeight, videoWidth, videoHeight } = video
  const scale = Math.min(clientWidth / videoWidth, clientHeight / videoHeight)
  const place = (offset, side, shown) => `${(shown - side * scale) / 2 + offset * scale}px`
  root.style.left = place(overlay.x, videoWidth, clientWidth)
  root.style.top = place(overlay.y, videoHeight, clientHeight)
  root.style.fontSize = `${Math.max(LEAST_PX, HEIGHT * videoHeight * scale)}px`
}
