// What the mark in the picture says (common/src/stamp.rs): its number, and when it was drawn, in ms of Unix time. The
// checksum is left out: a damaged time is not plausible.
const cells = new OffscreenCanvas(32 * 4, 4 * 4).getContext("2d", { willReadFrequently: true })
function mark(video) {
  const { videoWidth: width, videoHeight: height } = video, side = width / 64
  cells.drawImage(video, 0, height - 4 * side, 32 * side, 4 * side, 0, 0, 32 * 4, 4 * 4)
  const pixels = cells.getImageData(0, 0, 32 * 4, 4 * 4).data
  let bits = 0n
  for (let cell = 0; cell < 128; cell++) {
    // The middle of the cell: one of its four times four points.
    const x = 4 * (cell % 32) + 2, y = 4 * Math.floor(cell / 32) + 2
    bits = bits << 1n | BigInt(pixels[4 * (128 * y + x)] > 127)
  }
  if (bits >> 120n !== 0xa7n) return null
  return { frame: Number(bits >> 88n & 0xffffffffn), drawn: Number(bits >> 32n & (1n << 56n) - 1n) / 1000 }
}
