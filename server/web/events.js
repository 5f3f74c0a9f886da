// What the server tells as it happens: one connection for all parts of the page.

import { ask } from "./login.js"

const RETRY_MS = 2000
/** The server says something each 10 s; a connection that was lost with the link shows no end. */
const SILENCE_MS = 15000
/** For the answer to begin. */
const HEAD_MS = 5000
/** By the name of the event: who is to be called with its data. */
const listeners = new Map()
/** Ends the connection; null while there is none. */
let connection = null

/**
 * Calls `call(data)` for each event of this name, `connected` with the server's id at each new connection, until what
 * it returns is called.
 */
export function listen(name, call) {
  if (!listeners.has(name)) listeners.set(name, new Set())
  listeners.get(name).add(call)
  if (!connection) {
    connection = new AbortController()
    follow(connection.signal)
  }
  return () => {
    listeners.get(name).delete(call)
    if ([...listeners.values()].some(calls => calls.size)) return
    connection?.abort()
    connection = null
  }
}

/** What is told at the beginning is told again. */
export function reconnect() {
  if (!connection) return
  connection.abort()
  connection = new AbortController()
  follow(connection.signal)
}

function tell(name, text) {
  for (const call of listeners.get(name) ?? []) call(JSON.parse(text))
}

/** `EventSource` cannot be given a login. */
async function follow(signal) {
  while (!signal.aborted) {
    const end = new AbortController(), left = () => end.abort()
    signal.addEventListener("abort", left)
    let silence
    const within = ms => {
      clearTimeout(silence)
      silence = setTimeout(left, ms)
    }
    try {
      within(HEAD_MS)
      const reply = await ask("api/events", { signal: end.signal })
      within(SILENCE_MS)
      // Earlier versions do not say it.
      if (reply.ok) tell("connected", JSON.stringify(reply.headers.get("x-server-id")))
      const reader = reply.ok ? reply.body.pipeThrough(new TextDecoderStream()).getReader() : null
      let name = ""
      for (let text = "", part; reader && !(part = await reader.read()).done;) {
        within(SILENCE_MS)
        const lines = (text + part.value).split("\n")
        text = lines.pop()
        for (const line of lines) {
          if (line.startsWith("event: ")) name = line.slice(7)
          else if (line.startsWith("data: ")) tell(name, line.slice(6))
        }
      }
    } catch {
      // The server is away, or nobody listens any more.
    } finally {
      clearTimeout(silence)
      signal.removeEventListener("abort", left)
      end.abort()
    }
    if (!signal.aborted) await new Promise(resolve => setTimeout(resolve, RETRY_MS))
  }
}
