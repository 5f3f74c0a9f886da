// The last seconds of a stream, as the server keeps them, into a file of the browser.

import { ask } from "./login.js"
import { size } from "./recordings.js"
import { refusal } from "./session.js"

/** Half a minute of what is watched, at the tenth of the link that the server gives for it. */
export const CLIP_MS = 600000

/** The end of a clip of pictures that come is younger. */
const OLD_S = 2

/** Downloads `blob` under this name. */
export function keepFile(blob, name) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  // The download has its own hold on it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60000)
}

/**
 * A clip of so many seconds, or of as many as there are. Fetched, as a link could not carry the login. `server`: the id of
 * the one whose clip it shall be, where that is known.
 */
export async function fetchClip(stream, seconds, signal, server) {
  const query = new URLSearchParams({ ...stream && { stream }, ...seconds && { seconds } })
  const reply = await ask(`api/clip?${query}`, { signal })
  if (reply.status === 422 && seconds) return fetchClip(stream, undefined, signal, server)
  if (!reply.ok) throw await refusal(reply)
  const id = reply.headers.get("x-server-id")
  // Earlier versions do not say it.
  if (server && id && id !== server) {
    await reply.body.cancel()
    throw new Error("another server answers there by now")
  }
  const name = reply.headers.get("content-disposition")?.match(/filename="([^"]+)"/)?.[1] ?? "clip.mp4"
  const number = header => Number(reply.headers.get(header))
  const [length, age] = [Math.round(number("x-content-duration")), Math.floor(number("x-age"))]
  return { name, seconds: length, age, blob: await reply.blob() }
}

/** Saves a clip; what is to be said of it, with `doubt` of its pictures. `stop`, an `AbortController`, breaks it off. */
export async function saveClip(stream, server, stop, doubt) {
  const limit = setTimeout(() => stop.abort(new Error("it did not come in time")), CLIP_MS)
  try {
    const { name, seconds, age, blob } = await fetchClip(stream, undefined, stop.signal, server)
    keepFile(blob, name)
    // Of a stream that stands still.
    const ended = age >= OLD_S ? `; it ended ${age} s before it was asked for` : ""
    return `Saved ${name}: ${seconds} s, ${size(blob.size)}${ended}${doubt && `; ${doubt}`}`
  } catch (error) {
    return `No clip was saved: ${error.message}`
  } finally {
    clearTimeout(limit)
  }
}
