// What is done and what is said, given what is known. Pure: `now` is passed in, so that this is tested without a clock,
// a network or a picture. All times are in ms. The rules are those of rov-client: a session is kept as long as media
// says so, not as long as its sockets do.

/** A picture older than this is not live any more. */
export const STALE_MS = 1000
/** Without packets for so long, the server is asked what is wrong, and again after each such time. */
const PROBE_MS = 1000
/** The server says that it sends, and nothing arrives: a new session finds a new path. */
const DEAF_MS = 3000
/** A first path may take longer than that. */
const CONNECT_MS = 8000
/** By then a path is found where there is one: pictures come by HTTP until it is. */
const BLOCKED_MS = 4000
/**
 * Packets come and no picture of them: long, because a stream that is passed through may have that long between
 * keyframes.
 */
const BLIND_MS = 30000
/** Between two tries when the server refused: it will not have changed its mind at once. */
const REFUSED_MS = 5000
/** Between two tries when it does not answer: nobody shall wait for a picture that could be there. */
const RETRY_MS = [0, 250, 500, 1000]

const leave = reason => ({ act: "leave", reason })

/** How long to wait before the next session, after `failures` that gave no picture; `refused`: the server said no. */
export function retryDelay(failures, refused) {
  return refused ? REFUSED_MS : RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]
}

/**
 * What becomes of a session: `{ act: "live" | "starting" | "wait" | "leave", reason, probe, blocked }`. `probe`: ask
 * the server now. `blocked`: HTTP gets through and UDP does not.
 *
 * `session`: `lastPacket` is the time of the last packet, or of the start; `lastPicture` likewise for decoded pictures;
 * `connected` now; `foundPath`: ICE ever was; `hadPicture`; `paths` are the server's addresses for video; `ended` is
 * the reason why it is over, if it is; `probed` is what the server said last, `{ at, kind, state, reason }`, or null.
 * Kinds: `serving`, `awaits-keyframe`, `unknown` (this viewer), `refused` (nobody listens), `silent` (no answer),
 * `other` (no statistics).
 */
export function advise(now, session) {
  if (session.ended) {
    const blocked = !session.foundPath && session.paths.length > 0
    return { act: "leave", reason: blocked ? noPath(session) : session.ended, blocked }
  }
  const silent = now - session.lastPacket
  if (silent >= PROBE_MS) return withoutPackets(now, session, silent)
  const blind = now - session.lastPicture
  if (blind >= BLIND_MS) return leave(`Video arrives, but no picture could be decoded for ${duration(blind)}`)
  if (blind >= PROBE_MS) return { act: "wait", reason: "Video arrives, waiting for a keyframe", probe: false }
  return { act: session.hadPicture ? "live" : "starting" }
}

function withoutPackets(now, session, silent) {
  const wait = (reason, probe) => ({ act: "wait", reason, probe })
  const { probed } = session
  // What was said before the silence began is of no use now.
  if (!probed || probed.at <= session.lastPacket) return wait("No video arrives", true)
  const again = now - probed.at >= PROBE_MS
  const patience = session.connected ? DEAF_MS : CONNECT_MS
  switch (probed.kind) {
    case "unknown": return leave("The server has ended this session")
    case "refused": return leave("The server does not answer")
    // The link may come back, and the session with it.
    case "silent": return wait("The server does not answer", again)
    case "awaits-keyframe":
      return silent > BLIND_MS ? leave(`No keyframe for ${duration(silent)}`) : wait("Waiting for a keyframe", again)
    case "serving":
      if (probed.state !== "running") return wait(sourceTrouble(probed), again)
  }
  if (!session.foundPath && silent > BLOCKED_MS && session.paths.length) {
    return { ...(silent > patience ? leave(noPath(session)) : wait(noPath(session), again)), blocked: true }
  }
  if (silent > patience) return leave("The server sends video, but none arrives")
  return wait(session.connected ? "No video arrives" : "Connecting", again)
}

function noPath({ paths }) {
  const some = paths.slice(0, 3).join(", ")
  const remedy = "Open that port, or see --media-port and --public-address"
  return `No UDP gets through to ${some}: a firewall or NAT is in the way. ${remedy}`
}

function sourceTrouble({ state, reason }) {
  const said = {
    starting: "The source is starting",
    restarting: "The source is being restarted",
    stalled: "No usable pictures come from the source",
    ended: "The source has ended",
  }[state] ?? "The server has no picture"
  return reason ? `${said}: ${reason}` : said
}

/**
 * What the page shows: `{ state: "waiting" | "live" | "backup" | "late" | "blind" | "old", dim, badge, title, mark }`.
 * `mark`, in a frame of stripes, says what the picture is that is no live picture of its camera; null: it is one.
 * `lastPicture` is when a picture was last presented, or null; `awakeSince` is since when the page has been able to see
 * pictures come: the timers of a hidden tab sleep, and nothing that was missed meanwhile is held against the picture,
 * but for the dimming. `connected`: a session is; `lost`: one was, or was refused; `byHttp`: what is shown is no video,
 * but pictures by HTTP; `late`: how old the pictures are that come, where that is over the limit; `blind`: why that is
 * not known any more, or ""; `doubt`: of the server's statistics, `{ frozen, substitute, reason }`.
 */
export function view(now, { lastPicture, awakeSince, connected, lost, byHttp, late = null, blind = "", doubt = {} }) {
  if (lastPicture === null) {
    const title = lost ? "NO VIDEO" : connected ? "Waiting for the first picture…" : "Connecting…"
    return { state: "waiting", dim: false, badge: lost ? "NO VIDEO" : "Connecting", title, mark: null }
  }
  const age = now - lastPicture
  if (age <= STALE_MS) {
    const mark = doubtful(doubt), state = byHttp ? "backup" : "live"
    if (late !== null) {
      // What is no picture of the camera is said first.
      const both = mark ? { title: mark.title, detail: old(late) } : { title: old(late), detail: "" }
      return { state: "late", dim: false, badge: mark ? "NOT LIVE" : "OLD", title: "", mark: both }
    }
    if (blind) {
      const badge = mark ? "NOT LIVE" : "age ?"
      return { state: "blind", dim: false, badge, title: "", mark: mark ?? { title: BLIND, detail: blind } }
    }
    return { state, dim: false, badge: mark ? "NOT LIVE" : byHttp ? "Live, MJPEG" : "Live", title: "", mark }
  }
  if (now - awakeSince <= STALE_MS) return { state: "waiting", dim: true, badge: "Checking", title: "", mark: null }
  const mark = { title: "", detail: "" }
  return { state: "old", dim: true, badge: "NO VIDEO", title: `NO VIDEO ${duration(age)}`, mark }
}

/** New pictures come. */
export const isMoving = state => ["live", "backup", "late", "blind"].includes(state)

const BLIND = "AGE NOT KNOWN"

export function doubtful({ frozen, substitute, reason }) {
  const detail = reason ? reason[0].toUpperCase() + reason.slice(1) : ""
  if (substitute) return { title: "TEST PICTURE", detail }
  return frozen ? { title: "CAMERA FROZEN", detail } : null
}

/** In tenths of a second, rounded down. */
const old = ms => `${ms < 10000 ? `${(Math.floor(ms / 100) / 10).toFixed(1)} s` : duration(ms)} OLD`

/** The title of the tab, which is read while another is shown: so by `lastDecoded`, as nothing is presented then. */
export function tabTitle(now, name, { lastPicture, lastDecoded, lost, late = null, blind = "", doubt = {} }) {
  const last = Math.max(lastPicture ?? -Infinity, lastDecoded ?? -Infinity)
  const age = now - last
  const without = Number.isFinite(age) ? `NO VIDEO ${duration(age)}` : lost ? "NO VIDEO" : "connecting"
  // In a hidden tab nothing is presented, and how old that would be is not known.
  const isPresented = now - lastPicture <= STALE_MS
  const known = late !== null && isPresented ? old(late) : blind && isPresented ? BLIND : "live"
  const moving = doubtful(doubt)?.title ?? known
  return `${name || "ROV"} - ${age <= STALE_MS ? moving : without}`
}

const seconds = ms => Math.floor(ms / 1000)

export function duration(ms) {
  const s = seconds(ms)
  if (s < 120) return `${s} s`
  return s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`
}

/** The name of a file of that time, without its ending; as rov-client's. */
export function fileName(time, { vehicle, camera, stream }, ...words) {
  const names = [vehicle, camera, stream.split("/").at(-1), ...words].filter(Boolean)
  const safe = names.map(name => name.replace(/[^A-Za-z0-9_-]/g, "-"))
  return [time.toISOString().replace("T", "_").replaceAll(":", "-"), ...safe].join("_")
}
