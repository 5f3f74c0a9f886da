// What the pilot notes: the picture of that moment, a clip around it, what the vehicle measured, and a text. One ZIP file of
// the browser, which is unpacked into the folder of the dive: then it is as rov-client's events, and `rov-client report`
// reads it.

import { CLIP_MS, fetchClip, keepFile } from "./clip.js"
import { zip } from "./zip.js"

/** Around the moment, and a little for the way of the picture to here. */
const AFTER_MS = 5500
const CLIP_S = 11
/** More are not fetched at once: picture and text are saved without. */
const MOST_CLIPS = 3
let clips = 0

const failed = error => ({ failed: error?.message ?? String(error) })

/** Names in those of files; as rov-client's. */
const plain = text => text.replace(/[^A-Za-z0-9_-]/g, "-")

/** In metres, degrees; of the telemetry's fields of these names. */
function placeOf(telemetry) {
  const place = {}
  for (const name of ["latitude", "longitude", "depth", "heading"]) {
    const field = telemetry[name]
    // A unit of the user's own choice may be written behind a depth.
    if (typeof field?.value === "number" && (name !== "depth" || field.text.endsWith(" m"))) place[name] = field.value
  }
  return place
}

/** An event that cannot be saved. Its text is typed all the same: letters would be keys. */
export const refused = reason => ({ cancel() {}, save: async () => `No event was saved: ${reason}` })

/** An event that begins now; its text is said later. */
export class Note {
  /** `picture`: a promise of a PNG. `time`: when it was shown, as the browser knows it. */
  constructor({ vehicle, camera, stream, time, remarks, telemetry, picture }) {
    this.time = time
    this.stop = new AbortController()
    this.picture = picture.then(blob => blob.arrayBuffer()).catch(failed)
    this.clip = this.fetch(stream).catch(failed)
    this.event = {
      captured: `${time.toISOString().slice(0, -1)}000Z`,
      vehicle, place: placeOf(telemetry), telemetry,
    }
    this.of = { camera, stream, captured: this.event.captured, remarks }
    const names = [vehicle, camera, stream.split("/").at(-1), "event"].filter(Boolean)
    this.name = `${time.toISOString().replace("T", "_").replaceAll(":", "-")}_${plain(names.join("_"))}`
  }

  /** Once the seconds after it are there. */
  async fetch(stream) {
    if (clips >= MOST_CLIPS) throw new Error(`${MOST_CLIPS} clips are still being fetched`)
    clips += 1
    const limit = setTimeout(() => this.stop.abort(new Error("the clip did not come in time")), CLIP_MS)
    try {
      await new Promise(resolve => setTimeout(resolve, AFTER_MS))
      return await (await fetchClip(stream, CLIP_S, this.stop.signal)).blob.arrayBuffer()
    } finally {
      clearTimeout(limit)
      clips -= 1
    }
  }

  cancel() {
    this.stop.abort()
  }

  /** Downloads it, once all is there; what is to be said of it. */
  async save(text) {
    const parts = { snapshot: ["snapshot.png", await this.picture], clip: ["clip.mp4", await this.clip] }
    const picture = { ...this.of }, files = []
    for (const [what, [name, part]] of Object.entries(parts)) {
      picture[what] = part.failed ? part : { file: name }
      if (!part.failed) files.push({ name: `${this.name}/${name}`, bytes: new Uint8Array(part) })
    }
    const json = JSON.stringify({ text, ...this.event, pictures: [picture] }, null, 2)
    files.push({ name: `${this.name}/event.json`, bytes: new TextEncoder().encode(json) })
    const name = `${this.name}.zip`
    keepFile(new Blob(zip(files, this.time), { type: "application/zip" }), name)
    const missing = [["picture", picture.snapshot], ["clip", picture.clip]].filter(([, part]) => part.failed)
    const reasons = missing.map(([what, part]) => `no ${what}: ${part.failed}`).join("; ")
    return `Saved ${name}${reasons && `, but ${reasons}`}`
  }
}
