// What a picture that is kept says of itself, as EXIF 2.31 in the chunk `eXIf` of a PNG; the same as rov-client's
// (`common`'s exif.rs). Pure.

import { crc32 } from "./zip.js"

const BYTE = 1, ASCII = 2, LONG = 4, RATIONAL = 5, UNDEFINED = 7
/** Of TIFF: the order of bytes (the highest first), and where the first table is. */
const HEAD = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8]
/** The signature of a PNG, and its first chunk. */
const PNG_HEAD = 8 + 25
/** Of a name or remark, in characters. */
const MAX_TEXT = 1000

const long = number => [number >>> 24, number >>> 16 & 0xff, number >>> 8 & 0xff, number & 0xff]
const short = number => [number >>> 8, number & 0xff]
const rational = (value, scale) => [...long(Math.round(value * scale)), ...long(scale)]
const plain = text => Array.from(text).slice(0, MAX_TEXT).join("").replace(/\p{Cc}/gu, " ")
const utf8 = text => Array.from(new TextEncoder().encode(text))
const ascii = (tag, text) => [tag, ASCII, [...utf8(plain(text)), 0]]

/**
 * Entries `[tag, type, bytes]`, in the order of their tags, as a table at `at`; what takes more than 4 bytes is behind.
 */
function table(entries, at) {
  const sizes = { [RATIONAL]: 8, [LONG]: 4 }
  const head = short(entries.length), data = []
  const behind = at + 2 + entries.length * 12 + 4
  for (const [tag, type, bytes] of entries) {
    head.push(...short(tag), ...short(type), ...long(bytes.length / (sizes[type] ?? 1)))
    if (bytes.length <= 4) head.push(...bytes, ...Array(4 - bytes.length).fill(0))
    else {
      head.push(...long(behind + data.length))
      data.push(...bytes, ...Array(bytes.length % 2).fill(0))
    }
  }
  return [...head, ...long(0), ...data]
}

/** Whole degrees, minutes, and seconds with four digits: 3 mm. */
function degrees(value) {
  const parts = Math.round(Math.abs(value) * 36e6)
  const [whole, minutes, seconds] = [Math.floor(parts / 36e6), Math.floor(parts / 6e5) % 60, parts % 6e5]
  return [...long(whole), ...long(1), ...long(minutes), ...long(1), ...long(seconds), ...long(10000)]
}

function gps({ latitude, longitude, depth, heading }) {
  const entries = []
  if (latitude !== undefined && longitude !== undefined) {
    entries.push(ascii(1, latitude < 0 ? "S" : "N"), [2, RATIONAL, degrees(latitude)])
    entries.push(ascii(3, longitude < 0 ? "W" : "E"), [4, RATIONAL, degrees(longitude)])
  }
  // 1: below sea level.
  if (depth !== undefined) entries.push([5, BYTE, [Number(depth >= 0)]], [6, RATIONAL, rational(Math.abs(depth), 1000)])
  if (heading !== undefined) entries.push([0x11, RATIONAL, rational(heading, 100)])
  return entries.length ? [[0, BYTE, [2, 3, 0, 0]], ...entries] : []
}

/** With the code of its characters in front. */
function comment(text) {
  if (/^[\x00-\x7f]*$/.test(text)) return utf8(`ASCII\0\0\0${text}`)
  return [...utf8("UNICODE\0"), ...Array.from({ length: text.length }, (_, at) => short(text.charCodeAt(at))).flat()]
}

/** Where the vehicle is, in metres and degrees; of the telemetry's fields of these names. */
export function placeOf(telemetry) {
  const within = (name, most) => {
    const value = telemetry[name]?.value
    return typeof value === "number" && Math.abs(value) <= most ? value : undefined
  }
  const place = { latitude: within("latitude", 90), longitude: within("longitude", 180) }
  // A unit of the user's own choice may be written behind a depth.
  if (telemetry.depth?.text?.endsWith(" m")) place.depth = within("depth", 12000)
  const heading = within("heading", Infinity)
  if (Number.isFinite(heading)) place.heading = (heading % 360 + 360) % 360
  return place
}

/** `time`: a `Date`. `place`: as `placeOf` tells it. `remarks`: what somebody who goes by the picture has to know. */
export function tiff({ time, vehicle, camera, stream, place, remarks }) {
  const [day, clock, subsec] = time.toISOString().split(/[TZ.]/)
  const names = Object.entries({ vehicle, camera, stream }).filter(([, name]) => name)
  const of = names.map(([what, name]) => `${what} ${plain(name)}`).join(", ")
  const described = `${of}.${remarks.map(remark => ` ${plain(remark)}`).join("")}`
  const picture = [
    [0x9000, UNDEFINED, utf8("0231")],
    ascii(0x9003, `${day.replaceAll("-", ":")} ${clock}`),
    ascii(0x9011, "+00:00"),
    [0x9286, UNDEFINED, comment(described)],
    ascii(0x9291, subsec),
    ...vehicle ? [ascii(0xa430, vehicle)] : [],
  ]
  const where = gps(place)
  const image = (picture, where) => [
    [0x010e, ASCII, [...utf8(described), 0]],
    ...camera ? [ascii(0x0110, camera)] : [],
    [0x8769, LONG, long(picture)],
    ...where ? [[0x8825, LONG, long(where)]] : [],
  ]
  const pictureAt = HEAD.length + table(image(0, where.length), HEAD.length).length
  const details = table(picture, pictureAt)
  const whereAt = pictureAt + details.length
  const first = table(image(pictureAt, where.length && whereAt), HEAD.length)
  return [...HEAD, ...first, ...details, ...where.length ? table(where, whereAt) : []]
}

/** The PNG, as bytes, with this in it: parts for a `Blob`. */
export function withExif(png, about) {
  const data = tiff(about)
  const chunk = Uint8Array.from([...utf8("eXIf"), ...data])
  const [length, crc] = [data.length, crc32(chunk)].map(number => Uint8Array.from(long(number)))
  return [png.subarray(0, PNG_HEAD), length, chunk, crc, png.subarray(PNG_HEAD)]
}
