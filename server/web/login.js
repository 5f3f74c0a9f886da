// Who looks: a token out of the address, or a name and a password. Kept for this tab alone, and sent in a header: what
// stands in an address gets into logs and histories.

const KEPT = "rov-login"
/** A server that has not answered by then is watched as one without a login, which shows whether it is there. */
const LOGIN_MS = 10000

/** A browser that keeps nothing, as in a frame, asks again after a reload. */
function stored(act) {
  try {
    return act(sessionStorage)
  } catch {
    return null
  }
}

/** The value of `Authorization`, or null. */
let header = stored(storage => storage.getItem(KEPT))
/** STUN and TURN servers, as the server names them to whoever may watch. */
export let iceServers = []
/** Called when the server does not take the login any more. */
let lost = () => {}

function keep(value) {
  header = value
  stored(storage => value ? storage.setItem(KEPT, value) : storage.removeItem(KEPT))
}

export function onLost(call) {
  lost = call
}

/** Takes `#token=...` out of the address, which the server never gets to see; whether there was one. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token")
  if (!token) return false
  keep(`Bearer ${token}`)
  history.replaceState(null, "", location.pathname + location.search)
  return true
}

function authorized(options) {
  if (!header) return options
  // With a login of its own the browser asks for none.
  return { ...options, credentials: "omit", headers: { ...options.headers, Authorization: header } }
}

/** `fetch` by who has logged in. */
export async function ask(path, options = {}) {
  const reply = await fetch(path, authorized({ cache: "no-store", ...options }))
  if (reply.status === 401) lost()
  return reply
}

/**
 * `GET api/login`: who that is and what that one may do, with `error` where the server does not take the login; null
 * from a server that does not say.
 */
export async function whoIs() {
  // A password that is hashed takes its time.
  const signal = AbortSignal.timeout(LOGIN_MS)
  const reply = await fetch("api/login", authorized({ cache: "no-store", signal }))
  if (reply.ok) {
    const state = await reply.json()
    iceServers = state.iceServers ?? []
    return state
  }
  if (![401, 429, 503].includes(reply.status)) return null
  const body = await reply.json().catch(() => ({}))
  if (reply.status === 401) keep(null)
  return { may_watch: false, may_change: false, error: body.error ?? "The server refuses the login" }
}

/** As [`whoIs`], by this name and password. */
export function logIn(user, password) {
  const bytes = new TextEncoder().encode(`${user}:${password}`)
  keep(`Basic ${btoa(String.fromCharCode(...bytes))}`)
  return whoIs()
}
