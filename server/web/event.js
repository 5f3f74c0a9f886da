// What the pilot notes: the picture of that moment, a clip around it, what the vehicle measured, and a text. A ZIP file of
// the browser, and another one with the clip, which are unpacked into the folder of the dive: then it is as rov-client's
// events, and `rov-client report` reads it.

import { fileName } from "./advice.js"
import { CLIP_MS, fetchClip, keepFile } from "./clip.js"
import { zip } from "./zip.js"

/** Around the moment, and a little for the way of the picture to here. */
const AFTER_MS = 5500
const CLIP_S = 11
/** A server that gives others their clips, or does not answer, is asked again while it can still have the moment. */
const RETRY_MS = 3000
/** Where the server does not say how much it keeps. */
const KEPT_S = 26.5
/** More are not fetched at once: picture and text are saved without. */
const MOST_CLIPS = 3
let clips = 0

const failed = error => ({ failed: error?.message ?? String(error) })
const part = (file, bytes) => bytes.failed ? bytes : { file, bytes }
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

/** An event that cannot be saved. Its text is typed all the same: letters would be keys. */
export const refused = reason => ({ cancel() {}, save: async () => `No event was saved: ${reason}` })

/** An event that begins now; its text is said later. */
export class Note {
  /**
   * `picture`: a promise of a PNG, taken at `time`. `server`: the id of the one that has the clip, if known; `kept`: the
   * seconds that it keeps; `noClip`: why there is none.
   */
  constructor({ vehicle, camera, stream, time, remarks, place, telemetry, picture, server, kept, noClip }) {
    this.time = time
    this.stop = new AbortController()
    this.picture = picture.then(blob => blob.arrayBuffer()).catch(failed)
    this.clip = noClip ? Promise.resolve(failed(noClip)) : this.fetch(stream, server, kept ?? KEPT_S).catch(failed)
    this.event = {
      captured: `${time.toISOString().slice(0, -1)}000Z`,
      vehicle, place, telemetry,
    }
    this.of = { camera, stream, captured: this.event.captured, remarks }
    this.name = fileName(time, { vehicle, camera, stream }, "event")
  }

  /** Once the seconds after it are there. */
  async fetch(stream, server, kept) {
    if (clips >= MOST_CLIPS) throw new Error(`${MOST_CLIPS} clips are still being fetched`)
    clips += 1
    const limit = setTimeout(() => this.stop.abort(new Error("the clip did not come in time")), CLIP_MS)
    const retryLimit = kept * 1000 - AFTER_MS - RETRY_MS
    try {
      await pause(AFTER_MS)
      for (const due = performance.now(); ;) {
        const late = performance.now() - due
        try {
          // The newest seconds are given.
          const clip = await fetchClip(stream, CLIP_S + Math.round(late / 1000), this.stop.signal, server)
          return await clip.blob.arrayBuffer()
        } catch (error) {
          const isForNow = error instanceof TypeError || error.status === 503
          if (!isForNow || late >= retryLimit || this.stop.signal.aborted) throw error
        }
        await pause(RETRY_MS)
      }
    } finally {
      clearTimeout(limit)
      clips -= 1
    }
  }

  cancel() {
    this.stop.abort()
  }

  /** Downloads a ZIP file with the parts that have bytes, and with the event as it is known now; its name. */
  #keep(text, parts, ending) {
    const picture = { ...this.of }, files = []
    for (const [what, { file, bytes, failed, awaited }] of Object.entries(parts)) {
      picture[what] = failed ? { failed } : awaited ? { awaited } : { file }
      if (bytes) files.push({ name: `${this.name}/${file}`, bytes: new Uint8Array(bytes) })
    }
    const json = JSON.stringify({ text, ...this.event, pictures: [picture] }, null, 2)
    files.push({ name: `${this.name}/event.json`, bytes: new TextEncoder().encode(json) })
    const name = `${this.name}${ending}`
    keepFile(new Blob(zip(files, this.time), { type: "application/zip" }), name)
    return name
  }

  /** Downloads it at once, and the clip when that is there; what is to be said of it. `say`s that the clip follows. */
  async save(text, say) {
    const snapshot = part("snapshot.png", await this.picture)
    // It may have come while the text was typed.
    const early = await Promise.race([this.clip, null])
    const follows = { awaited: "clip.mp4" }
    const names = [this.#keep(text, { snapshot, clip: early ? part("clip.mp4", early) : follows }, ".zip")]
    if (!early) say(`Saved ${names[0]}; its clip follows`)
    const clip = part("clip.mp4", early ?? await this.clip)
    if (!early && !clip.failed) {
      names.push(this.#keep(text, { snapshot: { ...snapshot, bytes: null }, clip }, "_clip.zip"))
    }
    const missing = [["picture", snapshot], ["clip", clip]].filter(([, part]) => part.failed)
    const reasons = missing.map(([what, part]) => `no ${what}: ${part.failed}`).join("; ")
    // So long after the key a browser may ask first, or refuse.
    const second = names[1] ? `; its clip is ${names[1]}, if the browser allows a second download` : ""
    return `Saved ${names[0]}${second}${reasons && `, but ${reasons}`}`
  }
}
