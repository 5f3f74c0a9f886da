// What the pilot notes: the picture of that moment, a clip around it, what the vehicle measured, and a text. A ZIP file
// of the browser, and another one with the clip, which are unpacked into the folder of the dive: then it is as
// rov-client's events, and `rov-client report` reads it.

import { fileName } from "./advice.js"
import { fetchClip, keepFile, pause } from "./clip.js"
import { zip } from "./zip.js"

/** Before the moment and after it, and a little for the way of the picture to here. */
const AROUND_MS = 5500
/** A clip of an event shows its moment, but for what clocks differ by. */
const NEAR_MS = 100
/** More are not fetched at once: picture and text are saved without. */
const MOST_CLIPS = 3
let clips = 0
/** Of events that were saved: others are not unpacked into their folders. */
const names = new Set()

/** `name`, of the same moment `-2` and so on, as rov-client has it. */
function unused(name) {
  for (let number = 1; ; number += 1) {
    const one = number === 1 ? name : `${name}-${number}`
    if (names.has(one)) continue
    names.add(one)
    return one
  }
}

const failed = error => ({ failed: error?.message ?? String(error) })
const part = (file, bytes) => bytes.failed ? bytes : { file, bytes }

/** An event that cannot be saved. Its text is typed all the same: letters would be keys. */
export const refused = reason => ({ cancel() {}, save: async () => `No event was saved: ${reason}` })

/** An event that begins now; its text is said later. */
export class Note {
  /**
   * `picture`: a promise of a PNG, taken at `time`; `moment`, `captured`, `run`, `server` and `kept` as `fetchClip` has
   * them; `noClip`: why there is none.
   */
  constructor(options) {
    const { vehicle, camera, stream, time, remarks, place, telemetry, picture } = options
    const { moment, captured, run, server, kept, noClip } = options
    this.time = time
    this.stop = new AbortController()
    /** What somebody who looks at the clip has to know. */
    this.doubts = []
    this.picture = picture.then(blob => blob.arrayBuffer()).catch(failed)
    const around = { stream, moment, captured, run, before: AROUND_MS, after: AROUND_MS }
    this.clip = noClip ? Promise.resolve(failed(noClip)) : this.#fetch(around, { server, kept }).catch(failed)
    this.event = {
      captured: `${time.toISOString().slice(0, -1)}000Z`,
      vehicle, place, telemetry,
    }
    this.of = { camera, stream, captured: this.event.captured, remarks }
    this.name = fileName(time, { vehicle, camera, stream }, "event")
  }

  /** Once the seconds after it are there. */
  async #fetch(around, options) {
    if (clips >= MOST_CLIPS) throw new Error(`${MOST_CLIPS} clips are still being fetched`)
    clips += 1
    try {
      await pause(AROUND_MS, this.stop.signal)
      const { begun, lasted, blob } = await fetchClip(around, { ...options, signal: this.stop.signal })
      const before = begun - around.captured, after = -before - lasted
      const differs = (by, what) => by > NEAR_MS ? [`The clip ${what} (${(by / 1000).toFixed(1)} s).`] : []
      this.doubts = [...differs(before, "begins after the picture"), ...differs(after, "ends before the picture")]
      return await blob.arrayBuffer()
    } finally {
      clips -= 1
    }
  }

  cancel() {
    this.stop.abort()
  }

  /**
   * A ZIP file with the parts that have bytes, and with the event as it is known now, is handed to `keep`; its name.
   */
  #pack(text, parts, ending, keep) {
    const picture = { ...this.of, remarks: [...this.of.remarks, ...this.doubts] }, files = []
    for (const [what, { file, bytes, failed, awaited }] of Object.entries(parts)) {
      picture[what] = failed ? { failed } : awaited ? { awaited } : { file }
      if (bytes) files.push({ name: `${this.name}/${file}`, bytes: new Uint8Array(bytes) })
    }
    const json = JSON.stringify({ text, ...this.event, pictures: [picture] }, null, 2)
    files.push({ name: `${this.name}/event.json`, bytes: new TextEncoder().encode(json) })
    const name = `${this.name}${ending}`
    keep(new Blob(zip(files, this.time), { type: "application/zip" }), name)
    return name
  }

  /**
   * Downloads it at once, and `offer`s the clip when that is there; what is to be said of it. `say`s that the clip
   * follows.
   */
  async save(text, say, offer) {
    this.name = unused(this.name)
    const snapshot = part("snapshot.png", await this.picture)
    // It may have come while the text was typed.
    const early = await Promise.race([this.clip, null])
    const follows = { awaited: "clip.mp4" }
    const saved = [this.#pack(text, { snapshot, clip: early ? part("clip.mp4", early) : follows }, ".zip", keepFile)]
    if (!early) say(`Saved ${saved[0]}; its clip follows`)
    const clip = part("clip.mp4", early ?? await this.clip)
    if (!early && !clip.failed) {
      saved.push(this.#pack(text, { snapshot: { ...snapshot, bytes: null }, clip }, "_clip.zip", offer))
    }
    const missing = [["picture", snapshot], ["clip", clip]].filter(([, part]) => part.failed)
    const reasons = missing.map(([what, part]) => `no ${what}: ${part.failed}`).join("; ")
    const second = saved[1] ? `; its clip is ${saved[1]}` : ""
    const doubts = this.doubts.map(doubt => `. ${doubt.slice(0, -1)}`).join("")
    return `Saved ${saved[0]}${second}${reasons && `, but ${reasons}`}${doubts}`
  }
}
