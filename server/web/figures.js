// The figures of the information panel, out of the browser's `getStats` (W3C webrtc-stats) and the server's statistics.
// Pure.

/** What is needed of one report. Times are in ms; counters count from the start of the session. */
export function read(report) {
  const all = [...report.values()]
  const video = all.find(({ type, kind }) => type === "inbound-rtp" && kind === "video") ?? {}
  const transport = all.find(({ type }) => type === "transport")
  const pairs = all.filter(({ type }) => type === "candidate-pair")
  const pair = pairs.find(({ id }) => id === transport?.selectedCandidatePairId)
    ?? pairs.find(({ nominated, state }) => nominated && state === "succeeded")
  return {
    at: video.timestamp,
    packets: video.packetsReceived ?? 0,
    lost: video.packetsLost ?? 0,
    bytes: video.bytesReceived ?? 0,
    decoded: video.framesDecoded ?? 0,
    emitted: video.jitterBufferEmittedCount ?? 0,
    jitterMs: 1000 * (video.jitterBufferDelay ?? 0),
    decodeMs: 1000 * (video.totalDecodeTime ?? 0),
    codec: all.find(({ id }) => id === video.codecId)?.mimeType?.replace("video/", ""),
    decoder: video.decoderImplementation,
    rttMs: pair?.currentRoundTripTime === undefined ? undefined : 1000 * pair.currentRoundTripTime,
  }
}

/**
 * Rows of label and text, and the latency with its stages. `before` and `after` are two reports, `size` is the
 * picture's `[width, height]`, `stream` and `viewers` the server's statistics, `id` this viewer's, `shownMs` the mean
 * time from a picture's last packet to the screen, where the browser tells it. What is not known is left out.
 */
export function figures(before, after, size, stream, shownMs, viewers = [], id = undefined) {
  const span = after.at - before.at
  const rate = name => span > 0 ? (after[name] - before[name]) / span * 1000 : undefined
  const mean = (sum, count) =>
    after[count] > before[count] ? (after[sum] - before[sum]) / (after[count] - before[count]) : undefined
  const packets = after.packets - before.packets, lost = Math.max(0, after.lost - before.lost)
  const jitterMs = mean("jitterMs", "emitted"), decodeMs = mean("decodeMs", "decoded")
  const known = value => Number.isFinite(value)
  const ms = value => known(value) ? `${value.toFixed(1)} ms` : undefined

  // Each stream has its own.
  const rivals = viewers.filter(({ stream }) => stream === viewers.find(viewer => viewer.id === id)?.stream)
  const pilot = rivals.length > 1 ? rivals.find(({ pilot }) => pilot) : undefined

  const rows = [
    ["Camera", stream?.frozen ? stream.reason : undefined],
    ["Resolution", size[0] ? `${size[0]} × ${size[1]}` : undefined],
    ["Frame rate", known(rate("decoded")) ? `${rate("decoded").toFixed(1)} fps` : undefined],
    ["Bit rate", known(rate("bytes")) ? `${(8 * rate("bytes") / 1e6).toFixed(2)} Mbit/s` : undefined],
    ["Rate follows", pilot && `${pilot.address.split(":")[0]}${pilot.id === id ? " (this viewer)" : ""}`],
    ["Loss", packets + lost > 0 ? `${(100 * lost / (packets + lost)).toFixed(1)} %` : undefined],
    ["Round trip", ms(after.rttMs)],
    ["Jitter buffer", ms(jitterMs)],
    ["Decoding", ms(decodeMs)],
    ["Codec", [after.codec, after.decoder && after.decoder !== "unknown" ? `(${after.decoder})` : ""].join(" ").trim()],
  ].filter(([, value]) => value)

  const stages = [
    ["encoding", stream?.encode_latency_ms],
    ["network", known(after.rttMs) ? after.rttMs / 2 : undefined],
    ...(known(shownMs) ? [["buffer, decoding and display", shownMs]] : [["buffer", jitterMs], ["decoding", decodeMs]]),
  ].filter(([, value]) => known(value))
  const total = stages.length >= 3 ? stages.reduce((sum, [, value]) => sum + value, 0) : undefined
  return { rows, total, stages }
}
