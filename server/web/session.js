// One WHEP session (draft-ietf-wish-whep), and what the server says of itself.

import { ask, iceServers } from "./login.js"

/** A server that does not answer by then will not. */
const REPLY_MS = 2500

/** The server said no; `message` is its reason. `isMjpeg`: as the stream is MJPEG, which comes by HTTP. */
export class Refused extends Error {
  isMjpeg = false
}

async function request(path, options = {}) {
  return ask(path, { signal: AbortSignal.timeout(REPLY_MS), ...options })
}

/** For a vehicle whose clock is not set: microseconds since 1970. */
function timeOfDay() {
  return { "X-Client-Time": String(Date.now() * 1000) }
}

export async function refusal(reply) {
  const body = await reply.json().catch(() => ({}))
  const refused = new Refused(body.error ?? `the server answers ${reply.status} ${reply.statusText}`)
  return Object.assign(refused, { status: reply.status, isMjpeg: body.mjpeg === true })
}

/** `GET /api/stats`; fails as `fetch` does, or with `Refused`. */
export async function serverStats() {
  const reply = await request("api/stats")
  if (!reply.ok) throw await refusal(reply)
  return reply.json()
}

/**
 * `GET /api/clock`: the times of the exchange for `ClockSync`, by viewer the `pictures` that were sent last to those
 * with these names, by stream the `doubts` of its pictures, and which is the `first` stream. It waits until `signal`: a
 * queue on the way is no reason to give up, and a late answer proves something.
 */
export async function serverClock(viewers, signal) {
  const asked = performance.now()
  const path = viewers.length ? `api/clock?viewers=${viewers.map(encodeURIComponent).join(",")}` : "api/clock"
  const reply = await request(path, { signal })
  const answered = performance.now()
  if (!reply.ok) throw await refusal(reply)
  const { received_us: received, sent_us: sent, run, pictures = {}, doubts = {}, first } = await reply.json()
  return { asked, answered, received: received / 1000, sent: sent / 1000, run, pictures, doubts, first }
}

/**
 * What the server says of the viewer `id` on `stream`, in the words of `advise`; with its statistics, where it has
 * some.
 */
export async function probe(id, stream) {
  let stats
  try {
    stats = await serverStats()
  } catch (error) {
    if (error.name === "TimeoutError") return { kind: "silent" }
    return { kind: error instanceof TypeError ? "refused" : "other" }
  }
  const viewer = stats.viewers?.find(viewer => viewer.id === id)
  if (id && !viewer) return { kind: "unknown", stats }
  const { state, reason } = stats.streams?.find(({ name }) => name === stream) ?? stats.streams?.[0] ?? {}
  if (state === "running" && viewer?.awaits_keyframe) return { kind: "awaits-keyframe", stats }
  return { kind: "serving", state, reason, stats }
}

/**
 * Has the browser learn the round-trip time, by reports that it does not offer by itself (RFC 3611, section 4.4): without
 * it, it asks for a lost packet again after 100 ms only. Where it takes no such description, it goes without.
 */
async function describe(pc) {
  const { type, sdp } = await pc.createOffer()
  const withTime = sdp.replace(/^a=rtcp-fb:(\d+) transport-cc\r\n/gm, "$&a=rtcp-fb:$1 rrtr\r\n")
  await pc.setLocalDescription({ type, sdp: withTime }).catch(() => pc.setLocalDescription())
}

export class Session {
  /**
   * The viewer's name in the server's statistics, once there is one: what stands before the secret part of the
   * session's URL.
   */
  id = null
  /** SHA-256 of the certificate that the server proves to have, as `key` in its statistics; null before its answer. */
  key = null
  /** Why it is over, once it is. */
  ended = null
  /** Where the server takes and sends the video, `ADDRESS:PORT` each, once it is known. */
  paths = []
  /** Whether ICE ever connected. */
  foundPath = false
  #pc = null
  #url = null
  #closed = false
  #candidates = []

  /**
   * Calls `onTrack` with the video's track; fails with `Refused`, as `fetch` does, or with the browser's reason.
   * `asksFirst`: nothing is made before the server answers. Browsers have few connections, and free closed ones late.
   */
  async open(path, onTrack, asksFirst) {
    if (asksFirst) await (await request("api/stats")).text()
    if (this.#closed) return
    const pc = this.#pc = new RTCPeerConnection({ iceServers })
    pc.addTransceiver("video", { direction: "recvonly" })
    pc.ontrack = ({ receiver, track }) => {
      // No picture is held back to smooth the next one.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0
      else if ("playoutDelayHint" in receiver) receiver.playoutDelayHint = 0
      const dtls = receiver.transport
      dtls?.addEventListener("statechange", () => {
        if (dtls.state === "closed") this.ended ??= "The server has ended this session"
        if (dtls.state === "failed") this.ended ??= "The encrypted connection (DTLS) has failed"
      })
      onTrack(track)
    }
    pc.oniceconnectionstatechange = () => {
      this.foundPath ||= ["connected", "completed"].includes(pc.iceConnectionState)
    }
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "failed") this.ended ??= "The connection has failed"
    }
    // A candidate that cannot be told is missed only where the server does not see this browser's checks.
    pc.onicecandidate = ({ candidate }) => {
      this.#candidates.push(candidate?.candidate || null)
      this.#trickle().catch(error => console.info("candidates:", error.message))
    }
    await describe(pc)
    // Without candidates: they follow by PATCH, so that nothing waits for them.
    const offer = pc.localDescription.sdp
    const headers = { "Content-Type": "application/sdp", ...timeOfDay() }
    const reply = await request(path, { method: "POST", headers, body: offer })
    if (reply.status !== 201) throw await refusal(reply)
    this.#url = new URL(reply.headers.get("Location"), reply.url).href
    this.id = this.#url.split("/").pop().split("-")[0]
    const answer = await reply.text()
    this.key = answer.match(/^a=fingerprint:sha-256 (\S+)/im)?.[1].replaceAll(":", "").toLowerCase() ?? null
    // RFC 8839 section 5.1: foundation, component, transport, priority, address, port.
    const candidates = answer.matchAll(/^a=candidate:\S+ \S+ udp \S+ (\S+) (\d+)/gim)
    this.paths = [...candidates].map(([, ip, port]) => `${ip}:${port}`)
    // Left while the answer was on its way.
    if (this.#closed) return this.#hangUp()
    await pc.setRemoteDescription({ type: "answer", sdp: answer })
    await this.#trickle()
  }

  async #trickle() {
    if (!this.#url || this.#closed) return
    const found = this.#candidates.splice(0)
    if (!found.length) return
    const ufrag = this.#pc.localDescription.sdp.match(/a=ice-ufrag:.*\r\n/)[0]
    const lines = found.map(candidate => candidate ? `a=${candidate}\r\n` : "a=end-of-candidates\r\n").join("")
    await request(this.#url, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag" },
      body: `${ufrag}m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n${lines}`,
    })
  }

  get connected() {
    return this.#pc?.connectionState === "connected"
  }

  /** A browser may leave this open for ever, as Firefox where it is closed meanwhile. */
  async stats() {
    return this.#pc?.getStats() ?? new Map()
  }

  /** Ends it, and tells the server, also while the page is being left. */
  close() {
    if (this.#closed) return
    this.#closed = true
    this.#pc?.close()
    this.#hangUp()
  }

  #hangUp() {
    // A server that does not hear this notices the DTLS close_notify, or the silence.
    if (this.#url) ask(this.#url, { method: "DELETE", keepalive: true }).catch(() => {})
  }
}
