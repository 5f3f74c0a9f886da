// Files as one ZIP file (APPNOTE 6.3), not compressed: pictures and clips are already. Pure.

/** Of CRC-32, reflected. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit += 1) byte = byte & 1 ? byte >>> 1 ^ 0xedb88320 : byte >>> 1
  return byte
})
/** Names are UTF-8. */
const FLAGS = 0x0800
const VERSION = 20

export function crc32(bytes) {
  let crc = ~0
  for (const byte of bytes) crc = crc >>> 8 ^ TABLE[(crc ^ byte) & 0xff]
  return ~crc >>> 0
}

/** Numbers as `[value, bytes]`, the lowest byte first. */
function record(...numbers) {
  const bytes = new Uint8Array(numbers.reduce((sum, [, size]) => sum + size, 0))
  let at = 0
  for (const [value, size] of numbers) {
    for (let byte = 0; byte < size; byte += 1) bytes[at++] = value >>> 8 * byte
  }
  return bytes
}

/** As MS-DOS has it: `[time, date]`. */
function dosTime(time) {
  const year = Math.max(time.getFullYear() - 1980, 0)
  return [
    time.getHours() << 11 | time.getMinutes() << 5 | time.getSeconds() >> 1,
    year << 9 | time.getMonth() + 1 << 5 | time.getDate(),
  ]
}

/** The parts of the file, for a `Blob`. `files`: `{ name, bytes }`; together less than 4 GB. */
export function zip(files, time) {
  const [hour, day] = dosTime(time)
  const parts = [], directory = []
  let offset = 0
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name), size = bytes.length
    // Version, flags, method (stored), time, CRC, sizes, length of the name, none of the extra field.
    const what = [
      [VERSION, 2], [FLAGS, 2], [0, 2], [hour, 2], [day, 2], [crc32(bytes), 4], [size, 4], [size, 4], [path.length, 2],
      [0, 2],
    ]
    const head = record([0x04034b50, 4], ...what)
    parts.push(head, path, bytes)
    // No comment, the first disk, no attributes.
    directory.push(record([0x02014b50, 4], [VERSION, 2], ...what, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), path)
    offset += head.length + path.length + size
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0), count = files.length
  const end = record([0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [length, 4], [offset, 4], [0, 2])
  return [...parts, ...directory, end]
}
