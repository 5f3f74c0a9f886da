// The streams of a server in the order of the keys 1 to 9, and which of them are the tiles of the grid, as in
// rov-client. Pure.

/** More do not fit. */
export const MAX_TILES = 16

/**
 * `{ name, camera, title, pixels }` of each stream of the server's statistics: the first of each camera, then the
 * second of each, and so on. So a camera's number is that of its first stream.
 */
export function lineup(streams) {
  const seen = new Map()
  const placed = streams.map(({ name, camera = "", width = 0, height = 0 }) => {
    const place = seen.get(camera) ?? 0
    seen.set(camera, place + 1)
    const title = camera && !name.includes("/") ? `${camera}/${name}` : name
    return { name, camera, title, pixels: width * height, place }
  })
  // Stable: the cameras keep their order.
  return placed.sort((a, b) => a.place - b.place).map(({ place, ...stream }) => stream)
}

/** `{ number, title, stream }` of each tile: each camera by its smallest stream; of one camera alone each stream. */
export function tiles(all) {
  const cameras = [...new Set(all.map(({ camera }) => camera))]
  if (cameras.length < 2) return all.map(({ title, name }, at) => ({ number: at + 1, title, stream: name }))
  return cameras.map((camera, at) => {
    // Of those of the same size the last. One that had no picture yet is not known, but mostly small.
    const smallest = all.filter(stream => stream.camera === camera).reduce((a, b) => b.pixels <= a.pixels ? b : a)
    return { number: at + 1, title: camera, stream: smallest.name }
  })
}

/** All of them, for people: `1 bow/stream1, 2 arm/stream1`. */
export const told = all => all.map(({ title }, at) => `${at + 1} ${title}`).join(", ")
